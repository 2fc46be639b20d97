"""The rebuilt model, traced again, has the planned Axes, or it is said which it has."""

from __future__ import annotations

from surgeon.plan import DropBlock, Plan
from surgeon.rebuild.apply import apply_plan
from surgeon.rebuild.config_tree import vary
from surgeon.rebuild.retraced import retraced_faults
from surgeon.rebuild.skeleton import skeleton
from surgeon.trace import trace_module
from tests.rebuild.config_cases import cut, probed


def test_a_rebuilt_model_has_the_axes_that_the_plan_left():
    module, graph, space = probed("llama")
    plan = cut(graph, ffn=9)
    last = graph.blocks[-1].name
    kept = (edit for edit in plan.edits if graph.group(edit.axis).block != last)
    plan = Plan(graph.model_type, (*kept, DropBlock(last, 0)))
    small, _ = apply_plan(module, plan, graph, space)
    assert retraced_faults(plan, graph, trace_module(small)) == ()


def test_another_width_is_named():
    _, graph, space = probed("llama")
    before = space.config.intermediate_size
    other = trace_module(skeleton(vary(space.config, {("intermediate_size",): before - 3})))
    faults = retraced_faults(Plan(graph.model_type), graph, other)
    assert len(faults) == 4  # three in words, and how many more
    assert f"holds axes of {before - 3}" in faults[0] or f"and {before - 3}" in faults[0]
    assert faults[-1].startswith("and ")
