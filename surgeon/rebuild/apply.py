"""A Plan carried out on a module in memory: a new module, from a new config.

Not here: checkpoints (`surgeon.io`), the proof that the cut is a mask (`surgeon.rebuild.verify`).
"""

from __future__ import annotations

import copy
from typing import cast

from transformers import PreTrainedConfig, PreTrainedModel

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.plan import Plan
from surgeon.plan.report import LedgerRow
from surgeon.rebuild.config_ids import removed_ids, renumbered_fields
from surgeon.rebuild.config_probe import ConfigSpace, probe
from surgeon.rebuild.config_tree import vary
from surgeon.rebuild.execution import run_like
from surgeon.rebuild.export_layout import ExportLayout
from surgeon.rebuild.layout import arrange
from surgeon.rebuild.skeleton import load_into, skeleton
from surgeon.rebuild.tensors import ModuleSource

__all__ = ["apply_plan", "config_of"]


def apply_plan(
    module: PreTrainedModel,
    plan: Plan,
    graph: Graph,
    space: ConfigSpace | None = None,
    layout: ExportLayout = "uniform",
) -> tuple[PreTrainedModel, tuple[LedgerRow, ...]]:
    """A new module in which `plan` is carried out; `module` is left as it is.

    It is of the same class, or in the layout ``per_layer`` of a subclass that its config narrows.

    The weights keep their dtype and device, the module its mode (training or eval), attention
    implementation and generation config.

    Args:
        module: the traced model, with its weights.
        plan: what to do.
        graph: what `module` was traced to.
        space: what `probe(config_of(module), graph)` measured, where it is at hand.
        layout: how blocks of different widths are put.

    Returns:
        The new module, and one row per changed config field.

    Raises:
        InfeasibleError: no config of this layout builds what the plan leaves.
        RebuildError: tensors and module do not fit, all of them listed.
    """
    space = space or probe(config_of(module), graph)
    solution = arrange(space, graph, plan, layout)
    blank = skeleton(
        solution.config,
        dtype=module.dtype,
        attention=module.config._attn_implementation or "eager",
    )
    run_like(blank.config, module.config)
    small = cast(PreTrainedModel, load_into(blank, solution.stream(ModuleSource(module), graph)))
    if module.can_generate():
        small.generation_config = copy.deepcopy(module.generation_config)
        if len(removed := removed_ids(plan, graph)):
            named = renumbered_fields(module.generation_config.to_dict(), removed)
            small.generation_config.update(**named)
    return small.train(module.training), solution.ledger


def config_of(module: PreTrainedModel) -> PreTrainedConfig:
    """The module's config, naming the module's own class as the one to build.

    Raises:
        RebuildError: the module has no transformers config.
    """
    if not isinstance(module, PreTrainedModel):
        raise RebuildError(
            f"{type(module).__name__} is no transformers model, so no config can be changed to build it",
            hint="surgeon.apply takes a transformers.PreTrainedModel",
        )
    return vary(module.config, {("architectures",): [type(module).__name__]})
