"""Pool: Groups that keep one common number of indices, and what they have to offer.

Where nothing ties Groups to each other, each is a Pool of its own; where one field of the config holds
the size of several Axes, those are one Pool. An allocation decides a kept count for every Pool. Which
indices these are follows from each Group's own scores: the lowest go, of equal ones the lower index
first. Not here: making Pools of a selection (`pooling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from surgeon.errors import InfeasibleError
from surgeon.graph import Group

__all__ = ["Counts", "Depth", "Member", "Pool"]

Counts = tuple[int, ...]
"""A kept count for every Pool, in order."""


@dataclass(frozen=True)
class Depth:
    """Where in a Stack of so many `blocks` Groups lie: the mean place of their Blocks, from 0."""

    place: float
    blocks: int


@dataclass(frozen=True, eq=False)
class Member:
    """One Group of a Pool: the indices that are left, their scores [left], and what one index costs.

    `spread`, `searched` and `search` are `spread`, `best` and `search` of the Scores.
    """

    group: Group
    left: tuple[int, ...]
    scores: npt.NDArray[np.float64]
    cost: int
    spread: float | None = None
    searched: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    search: str = ""

    def best(self, count: int) -> tuple[int, ...]:
        """The `count` indices to keep, ascending."""
        if set(self.searched.get(count, (-1,))) <= set(self.left):
            return self.searched[count]
        ascending = np.argsort(self.scores, kind="stable")
        return tuple(self.left[place] for place in np.sort(ascending[len(self.left) - count :]))


@dataclass(frozen=True, eq=False)
class Pool:
    """Groups with one common kept count, a multiple of `multiple_of`.

    `began` is the number of indices of each Axis when the step began, `channels` that of an index. No
    allocation keeps fewer than `least`. `depth` is None for Groups in no Block. `lean` is what an
    allocation that looks at layers as a whole has found out about this one; its meaning is that
    allocation's own.

    Raises:
        InfeasibleError: the Groups differ in what is left of them, or are too small for `multiple_of`.
    """

    members: tuple[Member, ...]
    began: int
    channels: int = 1
    multiple_of: int = 1
    least: int = 1
    depth: Depth | None = None
    lean: float = 1.0

    def __post_init__(self) -> None:
        if len({len(member.left) for member in self.members}) > 1:
            unlike = ", ".join(f"'{m.group.name}' has {len(m.left)}" for m in self.members)
            raise InfeasibleError(f"these axes must keep one common count, and differ already: {unlike}")
        if self.top == 0:
            raise InfeasibleError(
                f"no multiple of {self.multiple_of} fits in '{self.names[0]}', which has {self.left} indices",
                hint="a smaller multiple_of, or a step of its own for this kind",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the Axes."""
        return tuple(member.group.name for member in self.members)

    @property
    def left(self) -> int:
        """Indices of each Axis that are left."""
        return len(self.members[0].left)

    @property
    def top(self) -> int:
        """The largest count that may be kept."""
        return self.left - self.left % self.multiple_of

    @property
    def floor(self) -> int:
        """The smallest count that may be kept: `least`, made up to a multiple."""
        return min(-(-self.least // self.multiple_of) * self.multiple_of, self.top)

    @property
    def cost(self) -> int:
        """Parameters that the model loses with one index of every Axis."""
        return sum(member.cost for member in self.members)

    def rungs(self) -> npt.NDArray[np.float64]:
        """The ladder down from `top` to `floor`: for each rung, the mean score of what it removes.

        A rung removes the `multiple_of` lowest indices that are left of every Axis; its value is their
        mean, so rungs of several Axes compare with those of one. Values never descend.
        """
        lowest = np.mean([np.sort(member.scores) for member in self.members], axis=0)
        removable = lowest[self.left - self.top : self.left - self.floor]
        means = removable.reshape(-1, self.multiple_of).mean(1)
        return np.maximum.accumulate(means)
