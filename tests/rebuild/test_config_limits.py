"""Limits: tied sets, refusals before anything is allocated, and nearest counts that really work."""

from __future__ import annotations

import pytest
from transformers import Gemma4TextConfig

from surgeon.plan.limits import Limits
from surgeon.rebuild.apply import apply_plan
from surgeon.rebuild.config_limits import ConfigLimits
from surgeon.rebuild.config_solve import solve
from surgeon.rebuild.verify import compare
from tests.rebuild.config_cases import TOKENS, cut, names, probed, probed_config


def limits(family: str, **changes):
    _, graph, space = probed(family, **changes)
    return ConfigLimits(space, graph), graph, space


def test_it_is_what_the_planner_asks_for():
    assert isinstance(limits("llama")[0], Limits)


def test_blocks_share_one_count_and_kinds_do_not():
    found, graph, _ = limits("llama", num_hidden_layers=3)
    ffn, kv = names(graph, "ffn"), names(graph, "kv_group")
    assert len(ffn) == len(kv) == 3
    assert set(found.tied([*ffn, *kv, "hidden"])) == {ffn, kv, ("hidden",)}


def test_untied_vocabularies_share_the_vocabulary_size():
    found, graph, _ = limits("llama")
    assert found.tied(names(graph, "vocab")) == (names(graph, "vocab"),)


def test_what_works_is_not_refused():
    found, graph, _ = limits("llama")
    assert found.refuse(dict.fromkeys(names(graph, "ffn"), 33)) is None
    assert found.refuse({"hidden": 54}) is None
    assert found.builds({"hidden": 54})
    assert not found.builds({"hidden": 50})
    assert found.refuse({"hidden": 60}) is None
    assert found.refuse({}) is None


def test_nearest_counts_are_those_around_that_work():
    found, graph, space = limits("llama")
    refused = found.refuse({"hidden": 50})
    assert refused is not None
    assert refused.nearest == (48, 54)
    assert "not a multiple of the number of attention heads" in refused.reason
    for count in refused.nearest:
        assert solve(space, graph, cut(graph, hidden=count)).config.hidden_size == count


def test_nearest_heads_are_divisors_where_the_family_wants_them():
    found, graph, _ = limits("llama", hidden_size=64, num_attention_heads=32, num_key_value_heads=8)
    kv = names(graph, "kv_group")
    refused = found.refuse(dict.fromkeys(kv, 6))  # 24 heads on hidden 64
    assert refused is not None
    assert refused.nearest == (4, 8)
    assert found.nearest(kv, 4, {}) == (4,)
    assert found.nearest(kv, 3, {"hidden": 48}) == (3,)  # 12 heads, which 48 is a multiple of


def test_one_block_alone_can_only_keep_its_size():
    found, graph, _ = limits("llama")
    first, second = names(graph, "ffn")
    refused = found.refuse({first: 40})
    assert refused is not None
    assert f"'{first}' keeps 40, '{second}' keeps 88" in refused.reason
    assert refused.nearest == (88,)


@pytest.mark.parametrize(("family", "kind"), [("bloom", "ffn"), ("gpt2", "kv_group")])
def test_a_width_that_no_field_holds_keeps_its_size(family, kind):
    found, graph, _ = limits(family)
    axes = names(graph, kind)
    size = graph.group(axes[0]).size
    refused = found.refuse(dict.fromkeys(axes, size - 2))
    assert refused is not None
    assert refused.nearest == (size,)


def test_axes_that_only_shrink_together():
    found, graph, _ = limits("gpt2")
    kv = dict.fromkeys(names(graph, "kv_group"), 4)
    assert found.refuse(kv) is not None
    assert found.refuse({"hidden": 40}) is not None
    assert found.refuse({**kv, "hidden": 40}) is None
    assert found.nearest(["hidden"], 45, kv) == (40,)


def test_what_no_count_of_works_is_told_by_a_few_beside_another_cut(monkeypatch):
    # A constant of the embedding follows its width, whatever becomes of the MLPs.
    found, graph, _ = limits("gemma3", hidden_size=96)
    ffn = dict.fromkeys(names(graph, "ffn"), graph.group(names(graph, "ffn")[0]).size // 2)
    tried: list[object] = []
    solved = ConfigLimits._solve
    monkeypatch.setattr(
        ConfigLimits, "_solve", lambda self, sizes: tried.append(sizes) or solved(self, sizes)
    )
    assert found.nearest(("hidden",), 72, ffn) == (96,)
    assert len(tried) <= 4


def test_heads_of_two_sizes_that_one_field_counts_are_cut_together():
    config = Gemma4TextConfig(
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=6,
        global_head_dim=10,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        hidden_size_per_layer_input=0,
        num_kv_shared_layers=0,
        vocab_size=50,
    )
    module, graph, space = probed_config(config)
    found = ConfigLimits(space, graph)
    kv = names(graph, "kv_group")
    assert found.refuse(dict.fromkeys(kv[:2], 3)) is not None
    assert found.tied(kv) == (kv,)
    assert found.nearest(kv, 3, {}) == (3,)
    plan = cut(graph, kv_group=3)
    small, ledger = apply_plan(module, plan, graph, space)
    assert {row.field for row in ledger} == {"num_attention_heads", "num_key_value_heads"}
    assert compare(module, small, plan, graph, TOKENS).require()
