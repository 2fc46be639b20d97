"""The export ladder: how a Plan becomes a config and tensors, by the layout that the recipe chose.

``uniform`` within what the config can say, ``padded`` with zeros up to the widest block, ``per_layer``
with a table of what differs. Not here: each of them (`config_solve`, `padded`, `per_layer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedConfig

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.plan import Keep, Limits, Plan, Refusal
from surgeon.plan.report import LedgerRow
from surgeon.rebuild.config_limits import ConfigLimits
from surgeon.rebuild.config_probe import ConfigSpace
from surgeon.rebuild.config_solve import solve
from surgeon.rebuild.export_layout import ExportLayout
from surgeon.rebuild.padded import ZeroedSource, widened_plan
from surgeon.rebuild.per_layer import shared_part, solve_per_layer
from surgeon.rebuild.per_layer_class import TABLE
from surgeon.rebuild.per_layer_spread import solve_spread, spread
from surgeon.rebuild.rebuild import rebuild
from surgeon.rebuild.tensors import TensorSource

__all__ = ["Arrangement", "arrange", "is_ordinary", "limited_part", "limits_of"]


@dataclass(frozen=True)
class Arrangement:
    """What is written: the config, what changed in it, and which Plan the tensors follow.

    `built` is the Plan whose shapes the config builds; it differs from `plan` where zeros are written.
    """

    config: PreTrainedConfig
    ledger: tuple[LedgerRow, ...]
    plan: Plan
    built: Plan

    def stream(self, source: TensorSource, graph: Graph) -> Iterator[tuple[str, Tensor]]:
        """The smaller model's tensors by name."""
        if self.built is self.plan:
            return rebuild(source, self.plan, graph)
        return rebuild(ZeroedSource(source, self.plan, graph), self.built, graph)


def arrange(space: ConfigSpace, graph: Graph, plan: Plan, layout: ExportLayout = "uniform") -> Arrangement:
    """The config of what `plan` leaves, in `layout`.

    Raises:
        InfeasibleError: the layout cannot express it; the reason, and the numbers.
    """
    built = widened_plan(space, graph, plan) if layout == "padded" else plan
    found = solve_per_layer(space, graph, plan) if layout == "per_layer" else solve(space, graph, built)
    return Arrangement(found.config, found.ledger, plan, built)


def is_ordinary(config: PreTrainedConfig) -> bool:
    """Whether the config is one that the stock class builds by itself."""
    return not getattr(config, TABLE, None)


def limits_of(space: ConfigSpace, graph: Graph, layout: ExportLayout = "uniform") -> Limits:
    """What a Plan for this layout may ask for."""
    limits = ConfigLimits(space, graph)
    return limits if layout == "uniform" else _Blockwise(limits, graph, space, layout)


@dataclass(frozen=True, slots=True)
class _Blockwise:
    """Limits of what blocks share; a block's own widths are free.

    What blocks share and no field holds, heads that read one table of positions, is tried in ``per_layer``.
    """

    shared: Limits
    graph: Graph
    space: ConfigSpace
    layout: ExportLayout
    tried: dict[frozenset, bool] = field(default_factory=dict)

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        own = {name for name in names if self._own(name)}
        others = self.shared.tied([name for name in names if name not in own])
        sets = (*((name,) for name in own), *others)
        return tuple(sorted(sets, key=lambda held: list(names).index(held[0])))

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        refusal = self.shared.refuse(self._shared(sizes))
        return None if refusal is None or self._works(self._shared(sizes)) else refusal

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        if all(map(self._own, names)):
            return (count,)
        others = self._shared(sizes)
        near = self.shared.nearest(names, count, others)
        alone = count not in near and self._works({**others, **dict.fromkeys(names, count)})
        return (count,) if alone else near

    def _works(self, sizes: Mapping[str, int]) -> bool:
        """Whether a table of modules says what no field does."""
        cut = {name: count for name, count in sizes.items() if count != self.graph.group(name).size}
        keeps = tuple(Keep(name, tuple(range(count)), 0) for name, count in cut.items())
        plan = Plan(self.graph.model_type, keeps)
        key = frozenset(cut.items())
        if key not in self.tried and self.layout == "per_layer" and spread(plan, self.graph):
            try:
                solve_spread(self.space, self.graph, plan)
                self.tried[key] = True
            except InfeasibleError:
                self.tried[key] = False
        return self.tried.get(key, False)

    def _own(self, name: str) -> bool:
        return self.graph.group(name).block is not None

    def _shared(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {name: size for name, size in sizes.items() if not self._own(name)}


def limited_part(plan: Plan, graph: Graph, layout: ExportLayout) -> Plan:
    """What of `plan` is under the config's limits in this layout."""
    return plan if layout == "uniform" else shared_part(plan, graph)
