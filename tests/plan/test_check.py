"""A Plan that cannot be carried out is refused before any weight is read, with every reason at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from surgeon.errors import InfeasibleError, PlanError
from surgeon.graph import Graph
from surgeon.plan import Assign, DropBlock, Keep, Plan, Refusal, Unlimited, check_plan
from tests.conftest import llama_config
from tests.handmade import llama_graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return llama_graph(llama_config())


def plan(*edits) -> Plan:
    return Plan("llama", edits)


def test_a_good_plan_passes(graph):
    check_plan(plan(Keep("layers.0.mlp.ffn", (0, 2, 39), 0), DropBlock("model.layers.1", 1)), graph)
    check_plan(plan(DropBlock("model.layers.1", 0), Assign("model.norm.weight", "fn")), graph)


def test_every_mismatch_is_collected(graph):
    bad = plan(
        Keep("layers.0.mlp.fnf", (1,), 0),
        Keep("layers.0.mlp.ffn", (), 1),
        Keep("layers.1.mlp.ffn", (-1, 3, 40), 1),
        Keep("layers.2.mlp.ffn", (3, 3), 2),
        DropBlock("model.layers.9", 3),
        Assign("model.norm.wieght", "fn", step=4),
    )
    with pytest.raises(InfeasibleError) as caught:
        check_plan(bad, graph)
    head, *lines = str(caught.value).splitlines()
    assert head == "the plan cannot be carried out:"
    expected = (
        "step 0, axis 'layers.0.mlp.fnf': the model has no such axis; try 'layers.0.mlp.ffn'",
        "step 1, axis 'layers.0.mlp.ffn': keeps nothing of 40",
        "step 1, axis 'layers.1.mlp.ffn': indices [-1, 40] are outside of 0 to 39",
        "step 2, axis 'layers.2.mlp.ffn': indices do not ascend, or repeat",
        "step 3: the model has no block 'model.layers.9'",
        "step 4: the model has no parameter 'model.norm.wieght'; try 'model.norm.weight'",
    )
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.strip().startswith(start)


def test_a_lock_is_refused_with_its_reasons_unless_nothing_is_cut(graph):
    locked = graph.map_groups(lambda g: g.lock(["x", "y"]) if g.kind == "ffn" else g)
    with pytest.raises(InfeasibleError, match=r"axis 'layers\.0\.mlp\.ffn': locked: x; y"):
        check_plan(plan(Keep("layers.0.mlp.ffn", (0, 1), 0)), locked)
    check_plan(plan(Keep("layers.0.mlp.ffn", tuple(range(40)), 0)), locked)


def test_a_sublayer_can_go_and_not_all_of_a_block(graph):
    check_plan(plan(DropBlock("model.layers.1.mlp", 0)), graph)
    both = plan(*(DropBlock(f"model.layers.1.{part}", 0) for part in ("self_attn", "mlp")))
    with pytest.raises(
        InfeasibleError, match=r"every sublayer of 'model.layers.1' is dropped: drop the block"
    ):
        check_plan(both, graph)


def test_a_sublayer_must_write_to_the_stream_by_itself(graph):
    name = "model.layers.1.mlp.down_proj.weight"
    parameters = {**graph.parameters}
    other = "model.layers.0.mlp.down_proj.weight"
    parameters[name] = replace(parameters[name], tied_to=other)
    with pytest.raises(InfeasibleError, match=f"what it writes with is one tensor with '{other}' elsewhere"):
        check_plan(plan(DropBlock("model.layers.1.mlp", 0)), replace(graph, parameters=parameters))
    axis = graph.stacks[0].axis
    mute = graph.map_groups(lambda g: replace(g, sites=()) if g.name == axis else g)
    with pytest.raises(InfeasibleError, match="nothing in it is seen to write to the residual stream"):
        check_plan(plan(DropBlock("model.layers.1.mlp", 0)), mute)


def test_a_stack_is_not_emptied(graph):
    with pytest.raises(InfeasibleError, match=r"all 3 blocks of 'model\.layers' are dropped"):
        check_plan(plan(*(DropBlock(f"model.layers.{i}", 0) for i in range(3))), graph)


def test_another_type_of_model_is_refused(graph):
    with pytest.raises(PlanError, match="made for a model of type 'opt', this one is 'llama'"):
        check_plan(Plan("opt"), graph)


class OnlyEven(Unlimited):
    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        odd = [name for name, size in sizes.items() if size % 2]
        return Refusal(f"{odd[0]} is odd", lambda: (2, 4)) if odd else None


class OneSize(Unlimited):
    """One size for every Axis, those that are not named included."""

    def tied(self, names):
        return (tuple(names),)

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        found = {sizes.get(f"layers.{layer}.mlp.ffn", 40) for layer in range(3)}
        return Refusal(f"one size holds for all, and there are {len(found)}") if len(found) > 1 else None


def test_what_went_with_a_dropped_block_has_no_size(graph):
    cut = [Keep(f"layers.{layer}.mlp.ffn", (0, 1), 1) for layer in (0, 2)]
    check_plan(plan(DropBlock("model.layers.1", 0), *cut), graph, OneSize())
    with pytest.raises(InfeasibleError, match="one size holds for all, and there are 2"):
        check_plan(plan(*cut), graph, OneSize())


def test_what_the_config_cannot_express_is_refused_with_the_nearest(graph):
    check_plan(plan(Keep("layers.0.mlp.ffn", (0, 1), 0)), graph, OnlyEven())
    with pytest.raises(InfeasibleError, match=r"layers\.0\.mlp\.ffn is odd; nearest that works: 2 or 4"):
        check_plan(plan(Keep("layers.0.mlp.ffn", (0, 1, 2), 0)), graph, OnlyEven())
