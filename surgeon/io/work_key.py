"""What identifies a piece of work: runs of the same key write the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["work_key"]

LENGTH = 16


def work_key(said: str, values: Mapping[str, object]) -> str:
    """A short hash of a text and of named tensors."""
    digest = hashlib.sha256(said.encode())
    for name in sorted(values):
        value = values[name]
        if isinstance(value, Tensor):
            digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:LENGTH]
