"""Layout: how an Axis lies in one tensor dimension, affine as in CuTe.

Index ``i`` of the Axis owns the positions ``offset + i·stride(axis mode) + Σ k·stride`` over all
``k`` of the other modes. Grouped-query heads, fused and interleaved QKV, fused gate/up and
rotate-half tables are all of this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Layout", "Mode", "Positions"]

Positions = npt.NDArray[np.int64]


class Mode(NamedTuple):
    """One nested loop of a Layout: `extent` steps of `stride` positions."""

    extent: int
    stride: int


@dataclass(frozen=True, slots=True)
class Layout:
    """`offset` and modes, outermost first; ``modes[axis_mode]`` is the Axis itself."""

    offset: int
    modes: tuple[Mode, ...]
    axis_mode: int

    @classmethod
    def plain(cls, size: int) -> Layout:
        """The Axis fills the dimension, one position an index."""
        return cls(0, (Mode(size, 1),), 0)

    @property
    def extent(self) -> int:
        """Size of the Axis."""
        return self.modes[self.axis_mode].extent

    @property
    def positions_per_index(self) -> int:
        """How many positions of the dimension one index owns."""
        count = 1
        for mode in self.modes:
            count *= mode.extent
        return count // self.extent

    def positions(self, indices: Sequence[int] | Positions | None = None) -> Positions:
        """Positions owned by `indices` (default: all), as an array [indices, positions_per_index].

        Row order follows `indices`; within a row, positions ascend with the other modes, outermost
        first. Flatten for a plain list.
        """
        axis = self.modes[self.axis_mode]
        chosen = np.arange(axis.extent) if indices is None else np.asarray(indices, dtype=np.int64)
        within = np.zeros(1, dtype=np.int64)
        for place, mode in enumerate(self.modes):
            if place != self.axis_mode:
                within = (within[:, None] + np.arange(mode.extent, dtype=np.int64) * mode.stride).reshape(-1)
        return self.offset + chosen[:, None] * axis.stride + within[None, :]
