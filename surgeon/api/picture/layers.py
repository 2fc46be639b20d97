"""What became of every layer, read from the Graph, the Plan and the Report.

The Plan alone says what was dropped, cut, merged and fitted again, so a replayed Plan has the same picture;
the Report adds what was asked for and what each layer was worth. Not here: how it is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from surgeon.graph import Block, Graph, Group, Stack, SublayerRole
from surgeon.plan import Assign, DropBlock, Keep, Plan, Report, kept_of, shapes_after

__all__ = ["Layer", "Part", "Scores", "StackView", "Width", "common_widths", "stack_views"]


@dataclass(frozen=True)
class Part:
    """Parameters of one sublayer of a layer, before and after; a role of None: what belongs to none."""

    role: SublayerRole | None
    before: int
    after: int
    dropped: bool = False
    fitted: bool = False
    """Whether a repair gave it new values."""


@dataclass(frozen=True)
class Width:
    """One Axis of a layer: which of its indices are kept, and how many are stored."""

    column: str
    """What it is called in every layer, as in ``mlp ffn``."""
    size: int
    kept: tuple[int, ...]
    stored: int
    """More than are kept where zeros fill up to the width that the file has."""
    requested: int | None = None
    merged: Mapping[int, int] = field(default_factory=dict)
    """Indices that were merged into another one, and into which."""

    @property
    def is_cut(self) -> bool:
        """Whether anything is gone."""
        return len(self.kept) < self.size


@dataclass(frozen=True)
class Layer:
    """One Block before, and what became of it."""

    name: str
    before: int
    after: int | None
    """Its place in the Stack that is left; None where it is gone."""
    parts: tuple[Part, ...]
    widths: tuple[Width, ...]
    step: int | None = None
    """The step that dropped it."""
    into: int | None = None
    """The layer, by its place before, that it was merged into."""
    takes: tuple[int, ...] = ()
    """The layers that were merged into it."""

    @property
    def fate(self) -> str:
        """What happened to it, in a few words."""
        if self.into is not None:
            return f"merged into {self.into}"
        if self.after is None:
            return "dropped"
        gone = [f"{part_name(part.role)} dropped" for part in self.parts if part.dropped]
        takes = [f"takes in {', '.join(map(str, self.takes))}"] if self.takes else []
        fitted = [part_name(part.role) for part in self.parts if part.fitted]
        cut = ["cut"] if any(width.is_cut for width in self.widths) else []
        again = [f"{' and '.join(fitted)} fitted again"] if fitted else []
        return ", ".join([*takes, *gone, *cut, *again]) or "kept as it is"

    @property
    def sizes(self) -> tuple[int, int]:
        """Parameters before and after."""
        return sum(part.before for part in self.parts), sum(part.after for part in self.parts)


@dataclass(frozen=True)
class Scores:
    """What one step found the layers of a Stack to be worth, by their places before."""

    title: str
    values: Mapping[int, float]
    gone: frozenset[int]
    """Layers that this step took out."""


@dataclass(frozen=True)
class StackView:
    """One Stack, before and after."""

    container: str
    layers: tuple[Layer, ...]
    scores: tuple[Scores, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Widths that were cut anywhere, in order."""
        cut = (width.column for layer in self.layers for width in layer.widths if width.is_cut)
        return tuple(dict.fromkeys(cut))

    @property
    def left(self) -> int:
        """How many layers stay."""
        return sum(layer.after is not None for layer in self.layers)


def part_name(role: SublayerRole | None) -> str:
    """A sublayer's role as a person says it."""
    return {"attn": "attention", "mlp": "MLP", "mixer": "mixer"}.get(role or "", "other")


def stack_views(graph: Graph, plan: Plan, built: Plan, report: Report) -> tuple[StackView, ...]:
    """Every Stack of the Graph; `built` is the Plan whose shapes are stored, zeros included."""
    reading = _Reading(graph, plan, built, report)
    return tuple(
        StackView(
            container=stack.container,
            layers=tuple(reading.layers(stack)),
            scores=tuple(reading.scores(stack)),
        )
        for stack in graph.stacks
    )


def common_widths(graph: Graph, plan: Plan, built: Plan, report: Report) -> tuple[Width, ...]:
    """Axes that belong to no single layer and were cut, such as the residual stream."""
    reading = _Reading(graph, plan, built, report)
    return tuple(
        width
        for group in graph.groups
        if group.block is None and (width := reading.width(group, group.name.replace("_", " "))).is_cut
    )


class _Reading:
    """The Plan, looked up by Block and Axis."""

    def __init__(self, graph: Graph, plan: Plan, built: Plan, report: Report) -> None:
        self.graph, self.plan, self.built, self.report = graph, plan, built, report
        self.shapes = shapes_after(built, graph)
        self.drops = {edit.block: edit.step for edit in plan.edits if isinstance(edit, DropBlock)}
        self.owner = {
            parameter.name: block.name
            for parameter in graph.parameters.values()
            if not parameter.buffer and (block := _owner(graph, parameter.name))
        }
        self.into = self._merges()
        self.fitted = {edit.param for edit in plan.edits if isinstance(edit, Assign) and not _sources(edit)}
        self.requested = {
            choice.axis: choice.requested for record in report.steps for choice in record.choices
        }

    def layers(self, stack: Stack) -> Iterator[Layer]:
        places = {block.name: place for place, block in enumerate(stack.blocks)}
        after = 0
        for block in stack.blocks:
            gone = block.name in self.drops
            into = self._target(block.name) if gone else None
            yield Layer(
                name=block.name,
                before=places[block.name],
                after=None if gone else after,
                parts=tuple(self._parts(block)),
                widths=tuple(self._widths(block)),
                step=self.drops.get(block.name),
                into=None if into is None else places.get(into),
                takes=tuple(places[b.name] for b in stack.blocks if self._takes(block.name, b.name)),
            )
            after += not gone

    def scores(self, stack: Stack) -> Iterator[Scores]:
        places = {block.name: place for place, block in enumerate(stack.blocks)}
        for record in self.report.steps:
            found = {
                places[choice.axis]: choice.score
                for choice in record.choices
                if choice.axis in places and choice.score is not None
            }
            if found:
                by = record.options.get("criterion")
                merged = any(choice.into is not None for choice in record.choices)
                what = (
                    str(by.get("criterion"))
                    if isinstance(by, Mapping)
                    else ("similarity" if merged else "score")
                )
                run = ", of the run from here" if record.options.get("contiguous") else ""
                gone = {
                    places[name]
                    for name, step in self.drops.items()
                    if step == record.step and name in places
                }
                yield Scores(f"{what.replace('_', ' ')}{run}", found, frozenset(gone))

    def width(self, group: Group, column: str) -> Width:
        kept = kept_of(self.plan, group)
        return Width(
            column=column,
            size=group.size,
            kept=kept,
            stored=len(kept_of(self.built, group)),
            requested=self.requested.get(group.name),
            merged=self._merged_indices(group, kept),
        )

    def _widths(self, block: Block) -> Iterator[Width]:
        roles = {part.name: part.role for part in block.sublayers}
        dropped = {part.name for part in block.sublayers if part.name in self.drops}
        seen: Counter[str] = Counter()
        for group in self.graph.groups:
            if group.block == block.name:
                role = roles.get(group.sublayer or "")
                plain = f"{role or ''} {group.kind.replace('_', ' ')}".strip()
                seen[plain] += 1
                if group.sublayer not in dropped:
                    yield self.width(group, plain if seen[plain] == 1 else f"{plain} {seen[plain]}")

    def _parts(self, block: Block) -> Iterator[Part]:
        mine = [name for name, owner in self.owner.items() if owner == block.name]
        left = set(mine)
        whole = block.name in self.drops
        for part in block.sublayers:
            names = [n for n in mine if n in left and n.startswith(tuple(f"{m}." for m in part.modules))]
            left -= set(names)
            gone = part.name in self.drops
            yield self._part(names, part.role, whole, gone)
        if left:
            yield self._part(sorted(left), None, whole, False)

    def _part(self, names: Sequence[str], role: SublayerRole | None, whole: bool, gone: bool) -> Part:
        before = sum(self.graph.parameters[name].numel for name in names)
        after = 0 if whole else sum(prod(self.shapes[name]) for name in names if name in self.shapes)
        return Part(role, before, after, gone, not whole and not self.fitted.isdisjoint(names))

    def _merges(self) -> dict[str, str]:
        """Blocks that were merged into another one, and into which; the last merge counts."""
        found: dict[str, str] = {}
        for edit in self.plan.edits:
            target = self.owner.get(edit.param) if isinstance(edit, Assign) else None
            if target is not None:
                found |= {source: target for source in _sources(edit) if source != target}
        told = (choice for record in self.report.steps for choice in record.choices)
        return found | {choice.axis: choice.into for choice in told if choice.into is not None}

    def _target(self, block: str) -> str | None:
        """The Block that is left and holds what became of `block`; None where nothing does."""
        seen: set[str] = set()
        target: str | None = block
        while target in self.drops and target not in seen:
            seen.add(target)
            target = self.into.get(target)
        return None if target in self.drops else target

    def _takes(self, block: str, other: str) -> bool:
        return other in self.drops and block not in self.drops and self._target(other) == block

    def _merged_indices(self, group: Group, kept: Sequence[int]) -> dict[int, int]:
        steps = {e.step for e in self.plan.edits if isinstance(e, Keep) and e.axis == group.name}
        merged: dict[int, int] = {}
        for edit in self.plan.edits:
            if isinstance(edit, Assign) and edit.step in steps and edit.param in group.params:
                for cluster in _clusters(edit):
                    if cluster[0] in kept:
                        merged |= dict.fromkeys(cluster[1:], cluster[0])
        return {index: into for index, into in merged.items() if index not in kept and index < group.size}


def _owner(graph: Graph, param: str) -> Block | None:
    """The Block that a parameter lies in."""
    return next((block for block in graph.blocks if param.startswith(f"{block.name}.")), None)


def _sources(edit: object) -> tuple[str, ...]:
    """Blocks that a value was made of, where it was made of several."""
    blocks = edit.args.get("blocks") if isinstance(edit, Assign) else None
    return tuple(map(str, blocks)) if isinstance(blocks, Sequence) and len(blocks) > 1 else ()


def _clusters(edit: Assign) -> tuple[tuple[int, ...], ...]:
    """Indices that a value was made of, the one that is left first."""
    clusters = edit.args.get("clusters")
    return tuple(tuple(cluster) for cluster in clusters) if isinstance(clusters, Sequence) else ()
