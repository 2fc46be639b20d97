"""The model that a Plan was made for, where a repair needed biases that the model at hand does not have."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from surgeon.graph import Graph
from surgeon.plan import Plan
from surgeon.rebuild import config_of
from surgeon.rebuild.bias_slots import bias_slots, with_bias_slots
from surgeon.repair import lacking_biases
from surgeon.trace import trace_module

__all__ = ["with_biases_of"]


def with_biases_of(plan: Plan, model: nn.Module) -> tuple[PreTrainedModel, Graph]:
    """`model`, or one that computes the same and has the biases that `plan` assigns; and its Graph.

    Raises:
        InfeasibleError: the config cannot switch them on.
    """
    graph = trace_module(model)
    lacking = lacking_biases(plan, graph)
    if not lacking:
        return model, graph  # type: ignore[return-value]  # a module of transformers wherever it matters
    larger = with_bias_slots(model, bias_slots(config_of(model), lacking))  # type: ignore[arg-type]
    return larger, trace_module(larger)
