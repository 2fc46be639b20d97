"""`load`: a checkpoint folder back into a module."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from surgeon.io import Checkpoint

__all__ = ["load"]


def load(model: str | Path, *, dtype: torch.dtype | None = None, device: str = "cpu") -> nn.Module:
    """The module of a checkpoint's folder or hub id, in eval mode, every tensor accounted for.

    Args:
        model: a folder that surgeon wrote, or any other checkpoint.
        dtype: of the weights; None takes the checkpoint's own.
        device: where to put them.

    Raises:
        CheckpointError: the folder is broken, incomplete or inconsistent.
    """
    return Checkpoint.open(model).load_module(dtype=dtype, device=device)
