"""Weights that are read at each use, of a Block all at once while it runs: for whole runs of a model.

What measures products looks for whole weights, and what is read in pieces is none. Not here: runs of one
Block on all samples (`walk`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from surgeon.rebuild.forward import all_tensors
from surgeon.rebuild.placed import placed
from surgeon.rebuild.room import Room
from surgeon.rebuild.unread import Unread

__all__ = ["blocks_held"]


@contextmanager
def blocks_held(module: nn.Module, blocks: Sequence[str]) -> Iterator[None]:
    """Each of `blocks` computes with tensors in memory, which are read when it is called."""
    room = Room()
    with ExitStack() as hooks:
        for name in blocks:
            part, held = module.get_submodule(name), ExitStack()

            def before(part: nn.Module, args: object, held: ExitStack = held) -> None:
                with torch.no_grad(), room.used():
                    unread = {n: t.values() for n, t in all_tensors(part).items() if isinstance(t, Unread)}
                held.enter_context(placed(part, unread))

            def after(part: nn.Module, args: object, output: object, held: ExitStack = held) -> None:
                held.close()

            hooks.callback(part.register_forward_pre_hook(before, prepend=True).remove)
            hooks.callback(part.register_forward_hook(after, always_call=True).remove)
            hooks.callback(held.close)
        yield
