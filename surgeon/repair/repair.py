"""Repair: how what is kept takes over what is gone, as a recipe says it.

A tagged object of the steps that cut, chosen by ``repair:``. Each is one file, registered in `repairs`:
from the cut projections, and what can be measured of them, to new tensors. It imports no model and no
calibration; `Evidence` brings what it asks for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from surgeon.graph.strict import Strict
from surgeon.registry import Registry
from surgeon.repair.cut import Cut

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Along", "Evidence", "Gap", "Repair", "Repaired", "repairs"]


@dataclass(frozen=True, eq=False)
class Gap:
    """What a projection of the cut model should add, and does not, on the residual stream.

    `gram` ``A^T A / n`` and `cross` ``A^T E / n`` with A [tokens, kept features] what enters the
    projection (a constant 1 appended where asked for), and E [tokens, outputs] the original's states
    minus the cut model's, behind the projection, in units of what the projection gives. `joined` is False
    where something else, a norm mostly, reads it before the stream does: E is then of its own output.
    Both matrices may be written to by whoever gets them.
    """

    gram: Tensor
    cross: Tensor
    joined: bool = True


@dataclass(frozen=True, eq=False)
class Along:
    """New tensors by name, and the projections that were not `joined`."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    apart: tuple[str, ...] = ()


class Evidence(Protocol):
    """The model before the cut, and on the way to being repaired."""

    def tensor(self, name: str) -> Tensor:
        """A parameter as the steps before left it: the old weights."""
        ...

    def means(self, cuts: Sequence[Cut]) -> Mapping[str, Tensor]:
        """Mean of what enters each projection before the cut, float64 [features] or [slices, features]."""
        ...

    def by_gram(
        self, cuts: Sequence[Cut], constant: bool, mend: Callable[[Cut, Tensor], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Call `mend` with the Gram matrix of what enters each projection before the cut, float64."""
        ...

    def along_stream(
        self, cuts: Sequence[Cut], constant: bool, mend: Callable[[Cut, Gap], Mapping[str, Tensor]]
    ) -> Along:
        """Call `mend` for each projection in turn; what it returns is in force when the next is measured."""
        ...


@dataclass(frozen=True)
class Repaired:
    """New tensors by parameter, in the parameters' shapes, and what is worth saying about them."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Repair(Strict, ABC):
    """Base of all repairs; a subclass has ``repair: Literal["its_name"]`` and its options."""

    repair: str

    @property
    def needs_text(self) -> bool:
        """Whether anything is measured on calibration text."""
        return True

    @property
    def wants_bias(self) -> bool:
        """Whether each projection must have a bias; those that are lacking are added, if the config can."""
        return False

    def refuse(self, cuts: Sequence[Cut]) -> str | None:
        """Why this repair cannot be made, known before anything is measured; None where it can."""
        return None

    @abstractmethod
    def mend(self, cuts: Sequence[Cut], evidence: Evidence) -> Repaired:
        """New values of parameters, such that the model does better once the cuts are made."""


repairs: Registry[type[Repair]] = Registry("repair", "surgeon.repair")
