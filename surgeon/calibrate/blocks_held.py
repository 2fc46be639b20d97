"""Weights that are read at each use, of a Block all at once while it runs: for whole runs of a model.

What measures products looks for whole weights, and what is read in pieces is none. Not here: runs of one
Block on all samples (`walk`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from torch import Tensor, nn

from surgeon.rebuild.forward import all_tensors
from surgeon.rebuild.placed import placed
from surgeon.rebuild.reading import Reading, computes_elsewhere
from surgeon.rebuild.unread import Unread

__all__ = ["blocks_held"]


@contextmanager
def blocks_held(module: nn.Module, blocks: Sequence[str]) -> Iterator[None]:
    """Each of `blocks` computes with tensors in memory, which are read when it is called."""
    parts = [module.get_submodule(name) for name in blocks]
    reading = Reading[int](lambda at: _unread(parts[at]), computes_elsewhere(module))
    with closing(reading), ExitStack() as hooks:
        for at, part in enumerate(parts):
            held = ExitStack()

            def before(part: nn.Module, args: object, at: int = at, held: ExitStack = held) -> None:
                held.enter_context(placed(part, reading.at(at, (at + 1) % len(parts))))

            def after(part: nn.Module, args: object, output: object, held: ExitStack = held) -> None:
                held.close()

            hooks.callback(part.register_forward_pre_hook(before, prepend=True).remove)
            hooks.callback(part.register_forward_hook(after, always_call=True).remove)
            hooks.callback(held.close)
        yield


def _unread(part: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in all_tensors(part).items() if isinstance(tensor, Unread)}
