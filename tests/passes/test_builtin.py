"""lock, unlock, regroup, and the example pass that a user could have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import PassError
from surgeon.graph import Graph, Selector
from surgeon.passes import GraphPass, passes
from surgeon.registry import load_plugin
from tests.conftest import llama_config
from tests.handmade import llama_graph

GRAPH = llama_graph(llama_config(num_hidden_layers=8))


def make(op: str, **options: object) -> GraphPass:
    return passes.get(op).model_validate({"op": op, **options})


def locked(graph: Graph) -> dict[str, str]:
    return {group.name: group.locked for group in graph.groups if group.locked}


def test_the_builtin_passes():
    assert {"lock", "unlock", "regroup"} <= set(passes.names())


def test_lock_adds_its_reason_to_what_it_selects_and_nothing_else():
    once = make("lock", select={"kind": "ffn", "blocks": ":2"}, reason="b").run(GRAPH)
    twice = make("lock", select={"kind": "ffn", "blocks": 0}, reason="a").run(once)
    assert locked(once) == {"layers.0.mlp.ffn": "b", "layers.1.mlp.ffn": "b"}
    assert locked(twice) == {"layers.0.mlp.ffn": "a; b", "layers.1.mlp.ffn": "b"}
    assert locked(GRAPH) == {}


def test_unlock_lifts_exactly_one_reason():
    graph = GRAPH.map_groups(lambda g: g.lock(["a", "b"]) if g.kind == "ffn" else g)
    after = make("unlock", select={"blocks": "4:"}, reason="a").run(graph)
    assert locked(after) == {f"layers.{i}.mlp.ffn": "a; b" if i < 4 else "b" for i in range(8)}


def test_unlock_of_a_reason_that_nothing_has_is_an_error():
    graph = GRAPH.map_groups(lambda g: g.lock(["rotary"]))
    with pytest.raises(PassError, match="nothing is locked for 'rotarry'") as caught:
        make("unlock", select={}, reason="rotarry").run(graph)
    assert "'rotary'" in str(caught.value)
    with pytest.raises(PassError, match="nothing of what it selects is locked"):
        make("unlock", select={}, reason="rotary").run(GRAPH)


def test_regroup_makes_one_group_with_all_sites():
    graph = GRAPH.map_groups(lambda g: g.lock(["why"]) if g.name == "layers.3.mlp.ffn" else g)
    after = make("regroup", select={"kind": "ffn", "blocks": "2:5"}).run(graph)
    whole = after.group("layers.*.mlp.ffn")
    parts = [graph.group(f"layers.{i}.mlp.ffn") for i in (2, 3, 4)]
    assert whole.axis.size == 40
    assert whole.kind == "ffn"
    assert whole.sites == tuple(site for part in parts for site in part.sites)
    assert whole.members == tuple(parts)
    assert whole.locks == {"why"}
    assert (whole.block, whole.sublayer) == (None, None)
    assert len(after.groups) == len(GRAPH.groups) - 2
    assert [g.name for g in Selector.model_validate({"kind": "ffn"}).on(after)] == [
        "layers.0.mlp.ffn",
        "layers.1.mlp.ffn",
        "layers.*.mlp.ffn",
        *(f"layers.{i}.mlp.ffn" for i in (5, 6, 7)),
    ]


def test_a_regrouped_axis_is_selected_by_what_holds_for_all_members():
    after = make("regroup", select={"kind": "ffn", "blocks": "2:5"}, name="mine").run(GRAPH)
    inside = Selector.model_validate({"kind": "ffn", "blocks": "2:5", "sublayer": "mlp"}).on(after)
    assert [group.name for group in inside] == ["mine"]
    across = Selector.model_validate({"kind": "ffn", "blocks": "4:"}).on(after)
    assert "mine" not in [group.name for group in across]


def test_regrouping_twice_and_locking_reach_the_members():
    once = make("regroup", select={"kind": "ffn", "blocks": ":2"}).run(GRAPH)
    twice = make("regroup", select={"kind": "ffn"}).run(once)
    (whole,) = twice.of_kind("ffn")
    assert [member.name for member in whole.members] == [f"layers.{i}.mlp.ffn" for i in range(8)]
    after = make("lock", select={"kind": "ffn"}, reason="late").run(twice)
    assert after.group("layers.5.mlp.ffn").locked == "late"
    assert make("unlock", select={"kind": "ffn"}, reason="late").run(after) == twice


def test_regroup_refuses_what_cannot_be_cut_alike():
    with pytest.raises(PassError, match=r"selects 'hidden' alone"):
        make("regroup", select={"kind": "hidden"}).run(GRAPH)
    with pytest.raises(PassError, match=r"several kinds or sizes .*kv_group\(3\).*ffn\(40\)"):
        make("regroup", select={"kind": ["ffn", "kv_group"]}).run(GRAPH)
    with pytest.raises(PassError, match="two groups are called"):
        make("regroup", select={"kind": "ffn"}, name="hidden").run(GRAPH)


@pytest.fixture(scope="module")
def example() -> str:
    path = Path(__file__).parents[2] / "examples" / "plugins" / "keep_outer_attention.py"
    load_plugin(path)
    return "keep_outer_attention"


def test_the_example_locks_the_attention_of_the_outer_quarters(example):
    after = make(example).run(GRAPH)
    assert {group.block for group in after.groups if group.locked} == {
        f"model.layers.{i}" for i in (0, 1, 6, 7)
    }
    assert {group.kind for group in after.groups if group.locked} == {"kv_group", "q_per_kv", "head_dim"}
    assert after.group("layers.0.attn.kv_group").locked == "attention of the outer 25% of the blocks"


def test_the_example_says_when_it_did_nothing(example):
    one = llama_graph(llama_config(num_hidden_layers=1))
    with pytest.raises(PassError, match="found no attention to lock"):
        make(example).run(one)
