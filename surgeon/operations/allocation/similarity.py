"""Allocation ``by_similarity``: layers that hardly change the residual stream lose more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from surgeon.calibrate.block_similarity import Between, BlockSimilarity
from surgeon.errors import InfeasibleError
from surgeon.operations.allocation.allocation import allocations
from surgeon.operations.allocation.profiled import Profiled
from surgeon.operations.pool import Pool
from surgeon.operations.state import State
from surgeon.repair import Repair

__all__ = ["BySimilarity"]


@allocations.register("by_similarity")
class BySimilarity(Profiled):
    """The allocation of Adapt-Pruner (Pan et al. 2025, arXiv 2502.03460).

    A Block's importance is what lies between its input and output: minus the cosine, or a distance, of which
    the angle is ours; less the mean, divided by the largest magnitude. In every shot a layer's removed
    share grows by the same step, less `amplitude` times its importance, and stays between 0 and 1. The
    paper takes many steps of some 5 %, with training between them: `shots`. An idle layer loses more.

    YAML::

        - op: remove
          allocation: {allocation: by_similarity, amplitude: 0.02}
          shots: 4
    """

    allocation: Literal["by_similarity"] = "by_similarity"
    similarity: Between = "cosine"
    """What lies between a Block's input and output, mean over tokens. Lengths (``manhattan``,
    ``euclidean``) grow with the stream, toward the end of most models."""
    amplitude: Annotated[float, Field(gt=0, le=1)] = 0.02
    """How far apart the shares of two layers may come in one shot, about half of it."""

    @property
    def measures(self) -> bool:
        """The similarity of Blocks."""
        return True

    def weighed(self, pools: Sequence[Pool], state: State, repair: Repair) -> tuple[Pool, ...]:
        """`lean` is minus the importance, from -1 to 1.

        Raises:
            InfeasibleError: the selection lies in no Block that was measured.
        """
        key = BlockSimilarity(self.similarity)
        found = state.statistics({key}, [m.group for pool in pools for m in pool.members]).get(key)
        alike = {
            name: float(value) * (1 if self.similarity == "cosine" else -1) for name, value in found.items()
        }
        centre = np.mean(list(alike.values()))
        largest = max(abs(value - centre) for value in alike.values()) or 1.0
        own = [[alike[m.group.block] for m in pool.members if m.group.block in alike] for pool in pools]
        if not all(own):
            name = next(pool.names[0] for pool, values in zip(pools, own, strict=True) if not values)
            raise InfeasibleError(
                f"'{name}' lies in no block whose input and output can be compared",
                hint="allocation: uniform for it, in a step of its own",
            )
        leans = [(float(np.mean(values)) - centre) / largest for values in own]
        return tuple(replace(pool, lean=float(lean)) for pool, lean in zip(pools, leans, strict=True))

    def removed(self, pools: Sequence[Pool], strength: float) -> npt.NDArray[np.float64]:
        """What went before, and a step that is the same for all but for the lean."""
        gone = np.array([1 - pool.left / pool.began for pool in pools])
        lean = self.amplitude * np.array([pool.lean for pool in pools])
        step = (1 + 2 * self.amplitude) * strength - self.amplitude
        return np.clip(gone + np.maximum(step + lean, 0.0), 0.0, 1.0)
