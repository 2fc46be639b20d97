"""Statistics: the results of a calibration run, read-only.

Reading one that was not declared is an error, so that a step cannot come to depend on what another
step happened to ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from surgeon.errors import SurgeonError

if TYPE_CHECKING:
    from torch import Tensor

    from surgeon.calibrate.statistic import Statistic

__all__ = ["Statistics"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one run measured; `loss` is the mean next-token loss over its `tokens` predicted tokens."""

    results: Mapping[Statistic, Mapping[str, Tensor]] = field(default_factory=dict)
    samples: int = 0
    tokens: int = 0
    loss: float | None = None

    def __post_init__(self) -> None:
        frozen = {key: MappingProxyType(dict(found)) for key, found in self.results.items()}
        object.__setattr__(self, "results", MappingProxyType(frozen))

    def get(self, key: Statistic) -> Mapping[str, Tensor]:
        """The result of `key`, or of a wider measurement that holds it.

        Raises:
            SurgeonError: `key` was not measured.
        """
        found = self.results.get(key, self.results.get(key.wider()))
        if found is None:
            measured = ", ".join(sorted(str(known) for known in self.results)) or "nothing"
            raise SurgeonError(
                f"statistic {key} was not measured; this run measured {measured}",
                hint="declare it in needs()",
            )
        return found

    def on(self, device: str) -> Statistics:
        """The same run, with all results on `device`."""
        moved = {key: {n: t.to(device) for n, t in found.items()} for key, found in self.results.items()}
        return Statistics(moved, self.samples, self.tokens, self.loss)

    def only(self, keys: Iterable[Statistic]) -> Statistics:
        """The same run, with nothing but `keys` to be read."""
        wanted = {key: self.get(key) for key in keys}
        return Statistics(wanted, self.samples, self.tokens, self.loss)

    def renamed(self, keys: Mapping[Statistic, Statistic]) -> Statistics:
        """The same run, in which what was measured as ``keys[key]`` is read as `key`, and nothing else."""
        return Statistics(
            {key: self.get(as_) for key, as_ in keys.items()}, self.samples, self.tokens, self.loss
        )
