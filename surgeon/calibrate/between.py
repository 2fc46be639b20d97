"""Comparisons: Statistics of the states between Blocks, of a model that is run one Block at a time.

Not here: the states (`streamed`), and what is compared (`block_similarity`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from torch import Tensor

from surgeon.calibrate.gather import joined
from surgeon.calibrate.statistic import Run, Statistic
from surgeon.calibrate.taps import Taps
from surgeon.calibrate.walk import Walk

__all__ = ["Comparisons"]

Named = Mapping[str, Tensor]


class Comparisons:
    """Those of `keys` that compare states; the samples are those of `walk`."""

    def __init__(self, keys: Collection[Statistic], walk: Walk) -> None:
        self._keys = tuple(key for key in keys if key.between)
        self._walk = walk

    @property
    def reach(self) -> int:
        """How many Blocks back any of them looks; 0 where there are none."""
        return max((key.reach for key in self._keys), default=0)

    def at(self, place: int, states: Callable[[int], Sequence[Tensor]]) -> dict[str, Tensor]:
        """What the states that enter Block `place`, or leave the last, add to the sums, by any name.

        Args:
            place: the Block's.
            states: gives those of an earlier place or this one, batch by batch.
        """
        found: dict[str, Tensor] = {}
        for number, key in enumerate(self._keys):
            begin = place - key.reach
            if begin < 0:
                continue
            collector = key.collector(self._run())
            for entering, leaving in zip(states(begin), states(place), strict=True):
                collector.compare(begin, entering, leaving)
            found |= {f"{number}/{name}": tensor for name, tensor in (collector.state() or {}).items()}
        return found

    def results(self, found: Iterable[Named]) -> dict[Statistic, dict[str, Tensor]]:
        """What is `found` at all places, of all ranks."""
        collectors = tuple(key.collector(self._run()) for key in self._keys)
        for piece in found:
            for number, collector in enumerate(collectors):
                mark = f"{number}/"
                own = {name.removeprefix(mark): t for name, t in piece.items() if name.startswith(mark)}
                if own:
                    collector.merge(own)
        if self._walk.ranks.size > 1:
            collectors = joined(self._keys, collectors, self._run(), self._walk.ranks)
        return {key: dict(one.result()) for key, one in zip(self._keys, collectors, strict=True)}

    def _run(self) -> Run:
        walk = self._walk
        return Run(walk.module, walk.samples, walk.tokens, Taps(walk.module))
