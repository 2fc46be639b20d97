"""`apply`: carry out a plan on a module in memory."""

from __future__ import annotations

from transformers import PreTrainedModel

from surgeon.api.biases import with_biases_of
from surgeon.api.known_ids import check_known_ids
from surgeon.plan import Plan, check_plan
from surgeon.rebuild import ExportLayout, apply_plan

__all__ = ["apply"]


def apply(model: PreTrainedModel, plan: Plan, layout: ExportLayout = "uniform") -> PreTrainedModel:
    """A new, smaller module, built from a new config; `model` is untouched.

    It is of the same class, or in the layout ``per_layer`` of a subclass where blocks differ in width.

    Raises:
        PlanError: the plan was made for another type of model.
        InfeasibleError: the model cannot be cut so, or its config cannot express the result.
    """
    model, graph = with_biases_of(plan, model)
    check_plan(plan, graph)
    small, _ = apply_plan(model, plan, graph, layout=layout)
    check_known_ids(plan, graph, small.config)
    return small
