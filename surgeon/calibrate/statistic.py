"""Statistic: the frozen key of something measured on calibration samples, and how it is collected.

A step declares the Statistics that it needs; one run over the samples (`surgeon.calibrate.gather`)
collects all of them. A new one is one new file: a frozen dataclass, registered by its name, whose
fields are its options, and a Collector. Not here: the run itself, and the results (`results`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from surgeon.graph import Graph, Group
from surgeon.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from surgeon.calibrate.packing import Samples
    from surgeon.calibrate.taps import Taps

__all__ = ["Collector", "Observation", "Run", "Statistic", "statistics"]


@dataclass(frozen=True, eq=False)
class Run:
    """What is measured on: the module, and how many samples and predicted tokens there are in all.

    `taps` hand on what enters parameters, to any number of Collectors. `common` is for what several
    Collectors of the run accumulate together, under keys of their own.
    """

    module: nn.Module
    samples: int
    tokens: int
    taps: Taps
    common: dict[object, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Observation:
    """One batch that went through the model.

    `tokens` is the number of predicted tokens in it, `loss` their mean next-token loss, and
    `gradients` the gradients of that mean by parameter name (a tied parameter under its first name),
    empty where no Statistic of the run asked for them.
    """

    batch: Samples
    tokens: int
    loss: float
    gradients: Mapping[str, Tensor]


class Collector(ABC):
    """Accumulates one Statistic over one run, in float32 or wider."""

    def attach(self) -> tuple[RemovableHandle, ...]:
        """Hooks on modules while a batch goes through the model; none unless overridden."""
        return ()

    def begin(self, batch: Samples) -> None:  # noqa: B027 (most collectors need no warning)
        """Called before `batch` goes through the model."""

    @abstractmethod
    def observe(self, observation: Observation) -> None:
        """Called after each batch; what the model is run for here is seen by nobody."""

    def compare(self, place: int, entering: Tensor, leaving: Tensor) -> None:
        """In place of a run: a batch's states before the Block at `place`, and where its `reach` ends."""
        raise NotImplementedError(f"{type(self).__name__} compares no states")

    @abstractmethod
    def result(self) -> Mapping[str, Tensor]:
        """What was measured, by name of parameter, Axis or Block as the Statistic says."""

    def state(self) -> Mapping[str, Tensor] | None:
        """All that was accumulated, by any name; None where it cannot be put aside and taken up again."""
        return None

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in what another Collector of the same Statistic accumulated, on other samples.

        A fresh Collector that merges a state is the one that gave it, to the bit.
        """
        raise NotImplementedError(f"{type(self).__name__} gives a state and cannot take one in")


@dataclass(frozen=True)
class Statistic(ABC):
    """Key of a measurement; equal keys are one measurement.

    `gradients`: the run must go backward. `per_sample`: batches must be single samples. `in_order`: one
    Collector must see all samples, one after the other. `inside`: it is about what happens inside single
    Blocks, so each can be run by itself. One that compares states `between` Blocks can be had from these.
    """

    statistic: ClassVar[str]
    gradients: ClassVar[bool] = False
    per_sample: ClassVar[bool] = False
    in_order: ClassVar[bool] = False
    inside: ClassVar[bool] = False

    @property
    def places(self) -> tuple[str, ...] | None:
        """Paths of the parameters or modules that it looks at; None for all."""
        return getattr(self, "params", None)

    @property
    def between(self) -> tuple[str, ...]:
        """Paths of the Blocks whose states it compares, in order, and nothing else; none for most."""
        return ()

    @property
    def reach(self) -> int:
        """How many Blocks lie `between` two states that are compared."""
        return 1

    def at(self, block: str) -> Statistic:
        """The measurement of what lies in the Block at that path; itself where names of parameters tell."""
        return self

    def on(self, graph: Graph, groups: Collection[Group]) -> Statistic:
        """The same measurement, no further than a step needs it that works on `groups`."""
        return self

    def wider(self) -> Statistic:
        """The measurement whose result holds this one's, itself unless it is narrowed."""
        return self

    @abstractmethod
    def collector(self, run: Run) -> Collector:
        """A fresh Collector for `run`."""


statistics: Registry[type[Statistic]] = Registry("statistic", "surgeon.calibrate")
