"""Site and Group: one Axis with every place where it appears, all cut by the same indices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from surgeon.graph.axis import Axis, AxisKind
from surgeon.graph.layout import Layout

__all__ = ["Group", "Port", "Role", "Site"]

Role = Literal["producer", "consumer", "pointwise", "index"]


@dataclass(frozen=True, slots=True)
class Site:
    """An Axis in one dimension of one parameter or stored buffer.

    `role`: ``producer`` (output features), ``consumer`` (contracted), ``pointwise`` (norm weight,
    bias, per channel), ``index`` (embedding rows, router rows). `stored` is False for a buffer that
    is computed from the config and not written to a checkpoint.
    """

    param: str
    dim: int
    layout: Layout
    role: Role
    stored: bool = True


@dataclass(frozen=True, slots=True)
class Port:
    """An Axis at the border of the model: a dim of an output, or the values of an index input.

    `dim` is None where the input's *values* are indices of the Axis (``input_ids`` over ``vocab``).
    `name` is the input's keyword or the output's field.
    """

    name: str
    direction: Literal["input", "output"]
    dim: int | None
    layout: Layout


@dataclass(frozen=True, slots=True)
class Group:
    """One Axis with all its Sites; `locks` are the reasons, in words, why it must not be cut.

    `picked` is how many of its indices the model takes at once by a ranking (a router's top-k), 0 where it
    ranks none; fewer cannot be left.

    `members` are the traced Groups that a pass tied into this one, cut by the same indices; a traced
    Group has none. Edits name the members, since a Plan is replayed on a fresh trace.
    """

    axis: Axis
    sites: tuple[Site, ...]
    block: str | None = None
    sublayer: str | None = None
    locks: frozenset[str] = frozenset()
    normalised: bool = False
    ports: tuple[Port, ...] = ()
    members: tuple[Group, ...] = ()
    picked: int = 0

    @property
    def name(self) -> str:
        """Name of the Axis; unique in a Graph."""
        return self.axis.name

    @property
    def kind(self) -> AxisKind:
        """Kind of the Axis."""
        return self.axis.kind

    @property
    def size(self) -> int:
        """Size of the Axis."""
        return self.axis.size

    @property
    def locked(self) -> str | None:
        """None, or all reasons in words."""
        return "; ".join(sorted(self.locks)) or None

    @property
    def params(self) -> tuple[str, ...]:
        """Names of the parameters that hold the Axis, in order, each once."""
        return tuple(dict.fromkeys(site.param for site in self.sites))

    def lock(self, reasons: Iterable[str]) -> Group:
        """The same Group with more reasons not to cut it."""
        more = frozenset(reasons)
        members = tuple(member.lock(more) for member in self.members)
        return replace(self, locks=self.locks | more, members=members)

    def unlock(self, reason: str) -> Group:
        """The same Group with exactly one reason lifted."""
        members = tuple(member.unlock(reason) for member in self.members)
        return replace(self, locks=self.locks - {reason}, members=members)
