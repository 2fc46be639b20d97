"""Scores: one number for every index of an Axis; higher means keep, always."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from surgeon.errors import SurgeonError

__all__ = ["Scores"]


@dataclass(frozen=True, eq=False)
class Scores:
    """`values` [size] float64, read-only, for the Axis called `axis`; equal ones rank by index, low first.

    `spread`: where a value stands for several channels, the standard deviation that the value would have
    if all channels of an index were alike; None: that of the values. `best`: for some kept counts the
    indices that are best together, where a criterion has searched sets, and `search` how it did, in words.

    Raises:
        SurgeonError: a value is not finite.
    """

    axis: str
    values: npt.NDArray[np.float64]
    spread: float | None = None
    best: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    search: str = ""

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        broken = np.flatnonzero(~np.isfinite(values))
        if broken.size:
            raise SurgeonError(
                f"the score of '{self.axis}' is {values[broken[0]]} at index {broken[0]} "
                f"({broken.size} of {values.size} are not finite)",
                hint="check the weights for NaN and infinity",
            )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)
