"""Passage: one batch through the current Block of a walk, with one module in it watched.

What enters a projection, where what it gives joins the residual stream, and the state that the Block ends
on: what everything that is fitted to the stream is made of. Not here: what is made of it (`gap`, `bridge`,
`expert_gap`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

from surgeon.calibrate.junction import Junction
from surgeon.calibrate.taps import Entering, Taps
from surgeon.calibrate.walk import Forward, Walk

__all__ = ["Passage", "Projection", "behind"]


@dataclass(frozen=True, eq=False)
class Passage:
    """`rows_NF` [tokens, features] entered the projection; None where it did not run once for each token.

    `junction` is behind the projection, or behind another module where that was asked for; `end` [rows,
    length, hidden] is what the Block handed on.
    """

    rows_NF: Tensor | None
    junction: Junction
    end: Tensor


class Projection:
    """The module of the matrix `param`, in the Block that `walk` stands before."""

    def __init__(self, param: str, walk: Walk) -> None:
        self.walk = walk
        self.part: nn.Module = walk.module.get_submodule(param.rpartition(".")[0])
        self._entered: list[Entering] = []
        self._taps = Taps(walk.module)
        self._taps.subscribe((param,), self._entered.append)

    def run(self, forward: Forward, number: int, at: nn.Module | None = None) -> Passage:
        """Batch `number`, with a junction behind the module `at`, or behind the projection itself."""
        self._entered.clear()
        with ExitStack() as stack:
            for handle in self._taps.attach():
                stack.callback(handle.remove)
            junction, end = behind(at or self.part, self.walk, forward, number)
        rows = None
        if len(self._entered) == 1 and self._entered[0].slices is None:
            rows = self._entered[0].rows_NF
        tokens = end.numel() // end.shape[-1]
        return Passage(rows if rows is not None and len(rows) == tokens else None, junction, end)


def behind(part: nn.Module, walk: Walk, forward: Forward, number: int) -> tuple[Junction, Tensor]:
    """The junction behind `part` after batch `number` ran, and what the Block handed on."""
    junction = Junction(part, walk.module.get_submodule(walk.blocks[walk.at]))
    with junction:
        end = walk.run(forward, number)
    return junction, end
