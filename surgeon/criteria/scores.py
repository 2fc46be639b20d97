"""Scores: one number for every index of an Axis; higher means keep, always."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surgeon.errors import SurgeonError

__all__ = ["Scores"]


@dataclass(frozen=True, eq=False)
class Scores:
    """`values` [size] float64, read-only, for the Axis called `axis`; equal ones rank by index, low first.

    Raises:
        SurgeonError: a value is not finite.
    """

    axis: str
    values: npt.NDArray[np.float64]

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
