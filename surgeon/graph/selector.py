"""Selector: which Groups a step works on, said in roles and block numbers, never in parameter names.

An empty selection is an error that says what exists. Locked Groups are selected like any other;
the step that wants to cut them decides. Not here: what is done with the Groups.
"""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from surgeon.errors import SelectorError
from surgeon.graph.axis import AxisKind
from surgeon.graph.graph import Graph
from surgeon.graph.group import Group
from surgeon.graph.stack import Stack, SublayerRole
from surgeon.graph.strict import OneOrMany, Strict
from surgeon.registry import nearest

__all__ = ["BlockRange", "Selector", "blocks_in"]

_SLICE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?\d+)?\s*)?")


def _slice(text: str) -> slice:
    """The slice that `text` spells: ``2:-2``, ``::2``, ``-4:``."""
    match = _SLICE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a slice of blocks; write it as in '2:-2', '::2', '-4:'")
    start, stop, step = (None if part is None else int(part) for part in match.groups())
    if step == 0:
        raise ValueError(f"the step of '{text}' is 0")
    return slice(start, stop, step)


def _block_range(value: object) -> str | int | tuple[int, ...]:
    """Check the spelling of `blocks`; which of them exist is a matter of the Graph."""
    if isinstance(value, str):
        _slice(value)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and value:
        if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
            return tuple(value)
    if isinstance(value, dict) and len(value) == 1 and next(iter(value.values())) is None:
        raise ValueError(f"YAML reads this as a mapping; put it in quotes: '{next(iter(value))}:'")
    raise ValueError("expected a slice such as '2:-2', a block number or a list of block numbers")


BlockRange = Annotated[
    str | int | tuple[int, ...],
    PlainValidator(_block_range),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^" + _SLICE.pattern + "$"},
                {"type": "integer"},
                {"type": "array", "items": {"type": "integer"}, "minItems": 1},
            ]
        }
    ),
]


def blocks_in(stack: Stack, blocks: BlockRange | None, alone: bool = True) -> tuple[str, ...]:
    """Names of the Blocks of `stack` that `blocks` means; None means all.

    Raises:
        SelectorError: a number that does not exist, where `alone` says that there is no other Stack.
    """
    names = tuple(block.name for block in stack.blocks)
    if blocks is None:
        return names
    if isinstance(blocks, str):
        return names[_slice(blocks)]
    numbers = (blocks,) if isinstance(blocks, int) else blocks
    outside = [number for number in numbers if not -len(names) <= number < len(names)]
    if outside and alone:
        raise SelectorError(
            f"blocks {outside} do not exist: '{stack.container}' has {len(names)} blocks",
            hint=f"numbers from 0 to {len(names) - 1}, or from {-len(names)} to -1",
            key="blocks",
        )
    return tuple(names[number] for number in numbers if number not in outside)


def _exception_sort(value: Any) -> str:
    return "selector" if isinstance(value, dict | Selector) else "axes"


class Selector(Strict):
    """Groups by kind, block and sublayer.

    YAML::

        select: {kind: [kv_group, ffn], blocks: "2:-2", except: {blocks: 5}, expect: 14}
    """

    kind: Annotated[tuple[AxisKind, ...], OneOrMany()] | None = None
    """One kind of Axis or several; absent: every kind."""
    blocks: BlockRange | None = None
    """Blocks by their place in their Stack: a slice in words, a number, or a list of numbers."""
    sublayer: SublayerRole | None = None
    """Only Groups inside a sublayer with this role."""
    except_: (
        Annotated[
            Annotated[Selector, Tag("selector")] | Annotated[tuple[str, ...], OneOrMany(), Tag("axes")],
            Discriminator(_exception_sort),
        ]
        | None
    ) = Field(default=None, alias="except")
    """What to leave out: a selection, or names of Axes (``*`` and ``?`` match any text)."""
    expect: Annotated[int, Field(ge=1)] | None = None
    """How many Groups this must select; another number is an error."""

    def on(self, graph: Graph, stack: str | None = None) -> tuple[Group, ...]:
        """The selected Groups, in the order of the Graph, locked ones included.

        Args:
            graph: where to look.
            stack: container of the one Stack to look in; absent: everywhere.

        Raises:
            SelectorError: nothing is selected, or another number than `expect`, or `except` names
                nothing that exists.
        """
        blocks = self._blocks(graph, stack)
        chosen = [group for group in graph.groups if self._matches(group, graph, blocks)]
        left_out = self._left_out(graph)
        chosen = [group for group in chosen if group.name not in left_out]
        if not chosen:
            raise SelectorError(f"{self} selects nothing", hint=f"what exists: {_inventory(graph)}")
        if self.expect is not None and len(chosen) != self.expect:
            listing = ", ".join(f"{n} {kind}" for kind, n in Counter(g.kind for g in chosen).items())
            raise SelectorError(
                f"{self} selects {len(chosen)} groups ({listing}), expected {self.expect}",
                hint=f"what exists: {_inventory(graph)}",
                key="expect",
            )
        return tuple(chosen)

    def __str__(self) -> str:
        said = self.model_dump(by_alias=True, exclude_none=True, exclude={"expect"}, mode="json")
        return f"select {said}" if said else "select {}"

    def _matches(self, group: Group, graph: Graph, blocks: frozenset[str] | None) -> bool:
        if group.members:
            return all(self._matches(member, graph, blocks) for member in group.members)
        if self.kind is not None and group.kind not in self.kind:
            return False
        if blocks is not None and group.block not in blocks:
            return False
        return self.sublayer is None or _role(group, graph) == self.sublayer

    def _blocks(self, graph: Graph, stack: str | None) -> frozenset[str] | None:
        """Names of the Blocks that `blocks` means; None: Groups outside of Blocks match too."""
        if self.blocks is None and stack is None:
            return None
        stacks = [found for found in graph.stacks if stack is None or found.container == stack]
        if not stacks:
            raise SelectorError(
                f"the graph has no stack '{stack}'",
                hint=nearest(str(stack), [s.container for s in graph.stacks]),
            )
        return frozenset(name for found in stacks for name in blocks_in(found, self.blocks, len(stacks) == 1))

    def _left_out(self, graph: Graph) -> frozenset[str]:
        if self.except_ is None:
            return frozenset()
        if isinstance(self.except_, Selector):
            return frozenset(group.name for group in self.except_.on(graph))
        names = [group.name for group in graph.groups]
        left_out: set[str] = set()
        for pattern in self.except_:
            hits = [name for name in names if fnmatchcase(name, pattern)]
            if not hits:
                raise SelectorError(
                    f"except: no axis is called '{pattern}'", hint=nearest(pattern, names), key="except"
                )
            left_out.update(hits)
        return frozenset(left_out)


def _role(group: Group, graph: Graph) -> SublayerRole | None:
    """Role of the sublayer that `group` lies in."""
    if group.block is None or group.sublayer is None:
        return None
    parts = graph.block(group.block).sublayers
    return next((part.role for part in parts if part.name == group.sublayer), None)


def _inventory(graph: Graph) -> str:
    """What there is to select, in words."""
    kinds = Counter(group.kind for group in graph.groups)
    roles = Counter(part.role for block in graph.blocks for part in block.sublayers)
    parts = [
        "kinds " + ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items())),
        *(f"{len(stack)} blocks in '{stack.container}' (0 to {len(stack) - 1})" for stack in graph.stacks),
        "sublayers " + (", ".join(f"{role} ({count})" for role, count in sorted(roles.items())) or "none"),
    ]
    return "; ".join(parts)
