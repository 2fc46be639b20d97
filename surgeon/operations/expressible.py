"""Move kept counts to what the exported model's config can express.

The nearest count wins, of two equally near the larger one: rather cut less than asked than more. A count
of 0 is a sublayer that is dropped, and no size. Not here: what the config can express, which
`surgeon.plan.Limits` answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.errors import InfeasibleError
from surgeon.operations.pool import Counts, Pool
from surgeon.operations.state import State
from surgeon.plan import Refusal, sizes

__all__ = ["Expressible"]


class Expressible:
    """Answers for the Pools of one shot, each question to the config asked once."""

    def __init__(self, state: State, pools: Sequence[Pool]) -> None:
        self.limits = state.limits
        self.pools = tuple(pools)
        after = sizes(state.plan, state.graph)
        self.now = {g.name: after[g.name] for g in state.graph.groups if after[g.name] < g.size}
        self._moved: dict[tuple[int, int], int] = {}

    def refusal(self, counts: Counts) -> Refusal | None:
        """Why the config cannot express `counts`, or None."""
        return self.limits.refuse(self._sizes(counts))

    def moved(self, counts: Counts) -> Counts:
        """Each Pool's count moved to the nearest that works while the others stay as they are now."""
        return tuple(self._single(place, count) for place, count in enumerate(counts))

    def settled(self, counts: Counts) -> Counts:
        """`moved`, and where the counts do not work together, each moved again given the others.

        Raises:
            InfeasibleError: no counts near `counts` work together.
        """
        found = list(self.moved(counts))
        if self.refusal(tuple(found)) is None:
            return tuple(found)
        for place, count in enumerate(counts):
            if not count:
                continue
            others = {n: c for n, c in self._sizes(tuple(found)).items() if n not in self.pools[place].names}
            found[place] = self._near(place, count, others)
        refusal = self.refusal(tuple(found))
        if refusal is not None:
            raise InfeasibleError(
                f"the config cannot express {self._said(counts)}, nor what is near: {refusal}",
                hint="keep by count, fewer kinds in one step, or export: {layout: per_layer}",
            )
        return tuple(found)

    def _single(self, place: int, count: int) -> int:
        pool = self.pools[place]
        if count in (pool.left, 0):
            return count
        if (place, count) not in self._moved:
            others = {name: size for name, size in self.now.items() if name not in pool.names}
            self._moved[place, count] = self._near(place, count, others)
        return self._moved[place, count]

    def _near(self, place: int, count: int, others: dict[str, int]) -> int:
        pool = self.pools[place]
        if self.limits.refuse({**others, **dict.fromkeys(pool.names, count)}) is None:
            return count
        options = [self._search(pool, count, others, up) for up in (True, False)]
        works = [option for option in options if option is not None]
        return min(works, key=lambda option: (abs(option - count), -option), default=pool.left)

    def _search(self, pool: Pool, count: int, others: dict[str, int], up: bool) -> int | None:
        """The nearest count in one direction that works and is a multiple, or None."""
        step = pool.multiple_of
        while 0 < count <= pool.left:
            near = self.limits.nearest(pool.names, count, others)
            ahead = [n for n in near if (n >= count if up else n <= count) and 0 < n <= pool.left]
            if not ahead:
                return None
            if ahead[0] % step == 0 or ahead[0] == pool.left:
                return ahead[0]
            count = ahead[0] + (-ahead[0] % step if up else -(ahead[0] % step))
        return None

    def _sizes(self, counts: Counts) -> dict[str, int]:
        asked = {n: c for pool, c in zip(self.pools, counts, strict=True) if c for n in pool.names}
        return {**self.now, **asked}

    def _said(self, counts: Counts) -> str:
        return ", ".join(f"{c} of '{p.names[0]}'" for p, c in zip(self.pools, counts, strict=True))
