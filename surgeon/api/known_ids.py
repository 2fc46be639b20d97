"""Whether a model whose vocabulary is cut knows its special tokens by their new numbers: seen by tracing it.

The config that was solved for says new numbers. Which of them forward pass compares ids with is no matter of
shapes, so the smaller model is traced without weights, and its vocabulary must fall into the planned parts.
"""

from __future__ import annotations

from transformers import PreTrainedConfig

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.plan import Plan
from surgeon.rebuild.config_ids import removed_ids
from surgeon.rebuild.retraced import retraced_faults
from surgeon.rebuild.skeleton import skeleton
from surgeon.trace import trace_module

__all__ = ["check_known_ids"]


def check_known_ids(plan: Plan, graph: Graph, config: PreTrainedConfig) -> None:
    """Trace what `config` builds, where `plan` removes token ids.

    Raises:
        InfeasibleError: it knows other tokens than the original.
    """
    if not len(removed_ids(plan, graph)):
        return
    faults = retraced_faults(plan, graph, trace_module(skeleton(config)))
    if faults:
        raise InfeasibleError(
            "a number that the model compares its ids with does not follow the config: in the smaller model "
            + "; ".join(faults),
            hint="remove only ids behind those that the model knows",
        )
