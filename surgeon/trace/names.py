"""Names of Axes for people: place in the Stack, role of the sublayer, kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from surgeon.graph import AxisKind, Block, Site, Stack, Sublayer, SublayerRole

__all__ = ["Place", "Places"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an Axis lives: its Block and Sublayer, if it stays within one, and a name for both."""

    label: str
    block: str | None = None
    sublayer: str | None = None
    role: SublayerRole | None = None


class Places:
    """Finds the Place of an Axis from its Sites, and hands out unique names."""

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self._blocks: dict[str, tuple[str, Block]] = {}
        self._used: Counter[str] = Counter()
        labels = _stack_labels([stack.container for stack in stacks])
        for stack, label in zip(stacks, labels, strict=True):
            for block in stack.blocks:
                self._blocks[block.name] = (f"{label}.{block.index}", block)

    def place(self, sites: Sequence[Site]) -> Place:
        """The one Block that holds all parameters, and within it the one Sublayer, if there is one."""
        owners = {self._owner(site.param) for site in sites}
        if len(owners) != 1 or None in owners:
            return Place("")
        name = owners.pop()
        assert name is not None
        label, block = self._blocks[name]
        parts = {_sublayer_of(block, site.param) for site in sites}
        part = parts.pop() if len(parts) == 1 else None
        if part is None:
            return Place(label, name)
        return Place(f"{label}.{_part_label(block, part)}", name, part.name, part.role)

    def name(self, place: Place, kind: AxisKind) -> str:
        """A name that no other Axis has."""
        plain = f"{place.label}.{kind}" if place.label else str(kind)
        self._used[plain] += 1
        return plain if self._used[plain] == 1 else f"{plain}_{self._used[plain]}"

    def _owner(self, param: str) -> str | None:
        path = param
        while path:
            path = path.rpartition(".")[0]
            if path in self._blocks:
                return path
        return None


def _sublayer_of(block: Block, param: str) -> Sublayer | None:
    return next(
        (part for part in block.sublayers if any(param.startswith(f"{module}.") for module in part.modules)),
        None,
    )


def _part_label(block: Block, part: Sublayer) -> str:
    """``attn``, or ``attn_2`` for the second one of that role."""
    alike = [other for other in block.sublayers if other.role == part.role]
    number = alike.index(part)
    return part.role if number == 0 else f"{part.role}_{number + 1}"


def _stack_labels(containers: Sequence[str]) -> list[str]:
    """``layers`` for the only Stack; else what tells the containers apart."""
    if len(containers) == 1:
        return ["layers"]
    split = [container.split(".") for container in containers]
    shared = 0
    while all(len(parts) > shared + 1 for parts in split) and len({parts[shared] for parts in split}) == 1:
        shared += 1
    return [".".join(parts[shared:]) for parts in split]
