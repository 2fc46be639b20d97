"""Allocation ``profile``: a shape over depth that the recipe writes down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from surgeon.graph.strict import Many
from surgeon.operations.allocation.allocation import allocations
from surgeon.operations.allocation.profiled import Profiled
from surgeon.operations.pool import Pool

__all__ = ["Profile"]


@allocations.register("profile")
class Profile(Profiled):
    """Layers lose in proportion to a monotone list of numbers, laid evenly over the depth.

    The first number is the first Block's, the last the last's, and between them lie straight lines: two
    numbers are a start and an end. Only their proportions count; `keep` says how much goes in all.

    YAML::

        allocation: {allocation: profile, removes: [1, 1, 2, 4]}
    """

    allocation: Literal["profile"] = "profile"
    removes: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2), Many()]
    """How much goes at evenly spaced depths, in proportion to each other."""

    @model_validator(mode="after")
    def _monotone(self) -> Self:
        steps = [later - earlier for earlier, later in pairwise(self.removes)]
        if any(step < 0 for step in steps) and any(step > 0 for step in steps):
            raise ValueError(f"removes must rise or fall throughout, got {list(self.removes)}")
        if not any(self.removes):
            raise ValueError("removes is 0 throughout, so nothing would go")
        return self

    def removed(self, pools: Sequence[Pool], strength: float) -> npt.NDArray[np.float64]:
        """In proportion to the profile, no layer more than whole."""
        heights = np.array([self._height(pool) for pool in pools])
        return np.minimum(strength * heights / heights[heights > 0].min(initial=np.inf), 1.0)

    def _height(self, pool: Pool) -> float:
        """Of the profile at the Pool's depth; the mean where it lies in no Block."""
        if pool.depth is None:
            return float(np.mean(self.removes))
        at = np.linspace(0.0, max(pool.depth.blocks - 1, 1), len(self.removes))
        return float(np.interp(pool.depth.place, at, self.removes))
