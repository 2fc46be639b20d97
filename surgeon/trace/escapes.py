"""Tensors that leave for Python without an op: ``tolist`` and ``numpy``.

What Python does with the numbers is out of sight, so the Axes that they come from must be locked.
A dispatch mode does not see these two methods; while recording they are wrapped. Not here: ``item``,
``int`` and ``bool``, which are ops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from surgeon.trace.record import Recorder

__all__ = ["ESCAPES", "escapes"]

ESCAPES = ("tolist", "numpy")


@contextlib.contextmanager
def escapes(recorder: Recorder) -> Iterator[None]:
    """While open, `recorder` writes down every tensor that becomes a list or an array."""
    before = {name: vars(torch.Tensor).get(name) for name in ESCAPES}
    try:
        for name in ESCAPES:
            setattr(torch.Tensor, name, _noted(recorder, name, getattr(torch.Tensor, name)))
        yield
    finally:
        for name, method in before.items():
            if method is None:
                delattr(torch.Tensor, name)
            else:
                setattr(torch.Tensor, name, method)


def _noted(recorder: Recorder, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        recorder.note(name, tensor)
        return method(tensor, *args, **kwargs)

    return call
