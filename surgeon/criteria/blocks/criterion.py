"""BlockCriterion: what makes one Block of a Stack, or one run of Blocks, worth more than another.

As a `Criterion`, it is a frozen recipe object chosen by the literal ``criterion:``; one a file,
registered in `block_criteria`. Not here: how many Blocks go (`surgeon.operations.drop_blocks`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from surgeon.graph.strict import Strict
from surgeon.plan import Plan
from surgeon.registry import Registry

if TYPE_CHECKING:
    from surgeon.calibrate import Bench, Statistic, Statistics
    from surgeon.rebuild import TensorSource

__all__ = ["BlockCriterion", "Candidates", "RunScores", "block_criteria"]

RunScores = npt.NDArray[np.float64]
"""One number for every run of neighbouring Blocks, by its first Block; infinite where none was asked for."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The Blocks of a Stack that are left, and what can be asked about them under the Plan so far.

    `blocks` are all that are left, in order; `open` are the places of those that may go. `params` names
    the parameters of each Block. `statistics` measures, `bench` tries Plans. Where sublayers are to choose
    from, `blocks` are those; `stack` are the whole Blocks that are left in either case.
    """

    blocks: tuple[str, ...]
    open: frozenset[int]
    params: Mapping[str, tuple[str, ...]]
    weights: TensorSource
    plan: Plan
    statistics: Callable[[Iterable[Statistic]], Statistics]
    bench: Callable[[], Bench]
    stack: tuple[str, ...] = ()

    @property
    def owners(self) -> dict[str, int]:
        """Where sublayers are to choose from: the place in `stack` of the Block of each; else nothing."""
        return {
            part: place
            for part in self.blocks
            for place, block in enumerate(self.stack)
            if part.startswith(f"{block}.")
        }

    def starts(self, run: int) -> tuple[int, ...]:
        """First places of the runs of `run` Blocks that may go whole."""
        return tuple(
            start
            for start in range(len(self.blocks) - run + 1)
            if self.open.issuperset(range(start, start + run))
        )

    def sums(self, single: Mapping[int, float], run: int) -> RunScores:
        """Scores of runs that are worth the sum of what their Blocks are worth."""
        found = np.full(len(self.blocks) - run + 1, np.inf)
        for start in self.starts(run):
            found[start] = sum(single[place] for place in range(start, start + run))
        return found


class BlockCriterion(Strict, ABC):
    """Scores runs of Blocks.

    Subclasses add ``criterion: Literal["name"] = "name"`` and their options. `reads_weights` is False
    for one that scores without looking at a tensor.
    """

    criterion: str

    reads_weights: ClassVar[bool] = True

    @abstractmethod
    def score(self, candidates: Candidates, run: int = 1) -> RunScores:
        """One score for every run of `run` neighbouring Blocks [blocks - run + 1]; higher means keep."""


block_criteria: Registry[type[BlockCriterion]] = Registry("block criterion", "surgeon.criteria.blocks")
