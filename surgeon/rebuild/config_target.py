"""What a Plan asks of a config: planned tensor shapes and Axis widths, as the shallow model shows them.

Blocks of one sort have one set of shapes in a config; where a plan gives two of them different ones,
no value of any field can be right, and that is said here. Not here: the search for values
(`config_solve`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from surgeon.errors import InfeasibleError
from surgeon.graph import AxisKind, Graph, Group
from surgeon.graph.layout import Positions
from surgeon.plan import DropBlock, Plan, cuts_of, gone_prefixes
from surgeon.rebuild.config_depth import Shallow
from surgeon.rebuild.config_probe import Dim
from surgeon.rebuild.signature import Shape

__all__ = ["Target", "Width", "aim", "planned_shapes"]


@dataclass(frozen=True)
class Width:
    """An Axis of the shallow model, with the kept size that the plan gives it.

    Axes of one kind and size in one block are one Width. `block` is None where the Axis lies in no
    single block.
    """

    kind: AxisKind
    old: int
    new: int
    block: str | None
    dims: frozenset[Dim]

    @property
    def ratio(self) -> Fraction:
        """Kept share."""
        return Fraction(self.new, self.old)

    def __str__(self) -> str:
        return f"{self.kind} {self.old} → {self.new}"


@dataclass(frozen=True)
class Target:
    """Planned shapes of the shallow model's tensors, all Widths, and the kept positions of tensors.

    `absent` are the beginnings of names in shown blocks of which the plan leaves none: they may come out as
    they like.
    """

    shapes: Mapping[str, Shape]
    widths: tuple[Width, ...]
    cuts: Mapping[str, Mapping[int, Positions]] = field(repr=False)
    absent: tuple[str, ...] = ()

    @property
    def cut(self) -> tuple[Width, ...]:
        """The Widths that shrink."""
        return tuple(width for width in self.widths if width.new != width.old)


def planned_shapes(cuts: Mapping[str, Mapping[int, Positions]], graph: Graph) -> dict[str, Shape]:
    """Shape after the cuts of every tensor of the traced model, under its old name."""
    return {
        name: tuple(len(cuts[name][d]) if d in cuts.get(name, ()) else s for d, s in enumerate(p.shape))
        for name, p in graph.parameters.items()
    }


def aim(plan: Plan, graph: Graph, shallow: Shallow) -> Target:
    """The Target of `plan` on the shallow model.

    Raises:
        InfeasibleError: blocks of one sort get different widths; all such Axes listed.
    """
    dropped = gone_prefixes(plan, graph)
    # What goes with dropped blocks outside of them is the depth's doing, no field's of a width.
    cuts = cuts_of(Plan(plan.model_type, tuple(e for e in plan.edits if not isinstance(e, DropBlock))), graph)
    planned = {n: s for n, s in planned_shapes(cuts, graph).items() if not n.startswith(dropped)}
    shown: dict[str, list[str]] = {}
    for name in planned:
        shown.setdefault(shallow.shown(name), []).append(name)
    _check_alike(planned, shown, plan, graph)
    # A shown block that is dropped itself is as wide as what is left of its sort.
    left = {shallow.first(name): alike[0] for name, alike in reversed(shown.items())}
    alike = {name: left[first] for name in shallow.base.shapes if (first := shallow.first(name)) in left}
    shapes = {n: planned[alike[n]] if n in alike else shape for n, shape in shallow.base.shapes.items()}
    shown_cuts = {name: cuts[other] for name, other in alike.items() if other in cuts}
    return Target(shapes, _widths(plan, graph, shallow, dropped), shown_cuts, _absent(plan, shallow))


def _absent(plan: Plan, shallow: Shallow) -> tuple[str, ...]:
    """Beginnings of names in shown blocks whose whole sort is dropped."""
    dropped = set(plan.dropped)
    if not shallow.sorts:
        return tuple(f"{name}." for name in plan.dropped)
    left = {first for block, first in shallow.sorts.items() if block not in dropped}
    return tuple(f"{block}." for block, first in shallow.sorts.items() if first not in left)


def _check_alike(
    planned: Mapping[str, Shape], shown: Mapping[str, Sequence[str]], plan: Plan, graph: Graph
) -> None:
    kept = plan.kept()
    faults: dict[str, None] = {}
    for alike in shown.values():
        if len({planned[name] for name in alike}) < 2:
            continue
        counts: dict[tuple[str, int], list[str]] = {}
        for name in alike:
            for group, _ in graph.sites[name]:
                count = len(kept.get(group.name, range(group.size)))
                counts.setdefault((group.kind, count), []).append(group.name)
        for kind in dict.fromkeys(kind for kind, _ in counts):
            sizes = sorted({(count, axes[0]) for (k, count), axes in counts.items() if k == kind})
            if len({count for count, _ in sizes}) > 1:
                words = ", ".join(f"'{axis}' keeps {count}" for count, axis in sizes)
                faults[f"  one {kind} size holds for all blocks of this sort, but {words}"] = None
    if faults:
        raise InfeasibleError(
            "the model's config cannot give its blocks different widths:\n" + "\n".join(faults),
            hint="keep the same count in every block (allocation: uniform), or export.layout: per_layer",
        )


def _widths(plan: Plan, graph: Graph, shallow: Shallow, dropped: tuple[str, ...]) -> tuple[Width, ...]:
    kept = plan.kept()
    dims: dict[tuple[AxisKind, int, int, str | None], set[Dim]] = {}
    for group in graph.groups:
        sites = [s for s in group.sites if not s.param.startswith(dropped)] if dropped else group.sites
        if sites:
            new = len(kept.get(group.name, range(group.size)))
            key = (group.kind, group.size, new, _block(group, shallow))
            dims.setdefault(key, set()).update((shallow.shown(s.param), s.dim) for s in sites)
    return tuple(Width(*key, frozenset(found)) for key, found in dims.items())


def _block(group: Group, shallow: Shallow) -> str | None:
    if group.block is None:
        return None
    return shallow.stands_for.get(group.block, group.block)
