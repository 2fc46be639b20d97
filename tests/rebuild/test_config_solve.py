"""Solved configs: every planned shape, the fields that a person would set, and honest refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import Gemma3nTextConfig, LlamaConfig, Qwen3MoeConfig

from surgeon.errors import InfeasibleError
from surgeon.plan import DropBlock, Keep, Plan
from surgeon.rebuild.config_judge import expected_values
from surgeon.rebuild.config_solve import Solution, solve
from surgeon.rebuild.config_target import Width
from tests.rebuild.config_cases import cut, names, probed, probed_config


def rows(solution: Solution) -> dict[str, tuple]:
    return {row.field: (row.old, row.new) for row in solution.ledger}


def solved(family: str, fields: dict | None = None, **counts: int) -> dict[str, tuple]:
    _, graph, space = probed(family, **(fields or {}))
    return rows(solve(space, graph, cut(graph, **counts)))


LLAMA_HEADS = {"num_attention_heads": (6, 3), "num_key_value_heads": (2, 1)}
EXPRESSIBLE = [
    ("llama", {"ffn": 50}, {"intermediate_size": (88, 50)}),
    ("llama", {"kv_group": 1}, LLAMA_HEADS),
    ("llama", {"q_per_kv": 2}, {"num_attention_heads": (6, 4)}),
    ("llama", {"hidden": 48}, {"hidden_size": (60, 48)}),
    ("llama", {"vocab": 140}, {"vocab_size": (151, 140)}),
    (
        "llama-tied",
        {"hidden": 48, "ffn": 50, "kv_group": 1, "vocab": 140},
        {"hidden_size": (60, 48), "intermediate_size": (88, 50), "vocab_size": (151, 140), **LLAMA_HEADS},
    ),
    ("llama-mha", {"kv_group": 5}, {"num_attention_heads": (6, 5), "num_key_value_heads": (6, 5)}),
    ("qwen3", {"kv_group": 1, "hidden": 50}, {"hidden_size": (60, 50), **LLAMA_HEADS}),
    ("qwen2", {"kv_group": 1}, {**LLAMA_HEADS, "head_dim": (None, 10)}),
    ("qwen2", {"hidden": 41}, {"hidden_size": (60, 41), "head_dim": (None, 10)}),
    ("gemma3", {"kv_group": 1, "ffn": 50}, {"intermediate_size": (88, 50), **LLAMA_HEADS}),
    ("phi3", {"q_per_kv": 2}, {"num_attention_heads": (6, 4), "head_dim": (None, 10)}),
    ("phi3", {"ffn": 44}, {"intermediate_size": (88, 44)}),
    ("gpt2", {"ffn": 50}, {"n_inner": (88, 50)}),
    ("gpt2", {"hidden": 40, "kv_group": 4}, {"n_embd": (60, 40), "n_head": (6, 4)}),
    ("gptneox", {"hidden": 30, "kv_group": 3}, {"hidden_size": (60, 30), "num_attention_heads": (6, 3)}),
    (
        "opt",
        {"hidden": 40, "kv_group": 4, "ffn": 50},
        {
            "hidden_size": (60, 40),
            "word_embed_proj_dim": (60, 40),
            "num_attention_heads": (6, 4),
            "ffn_dim": (88, 50),
        },
    ),
    ("falcon-multi-query", {"ffn": 50}, {"ffn_hidden_size": (88, 50)}),
]


@pytest.mark.parametrize(("family", "counts", "ledger"), EXPRESSIBLE)
def test_fields_a_person_would_set(family, counts, ledger):
    assert solved(family, **counts) == ledger


def test_a_derived_width_is_set_or_pinned():
    assert solved("gpt2", {"n_inner": None}, ffn=100) == {"n_inner": (None, 100)}
    pinned = solved("gpt2", {"n_inner": None}, hidden=40, kv_group=4)
    assert pinned == {"n_embd": (60, 40), "n_head": (6, 4), "n_inner": (None, 240)}


def test_a_pin_says_why():
    _, graph, space = probed("qwen2")
    why = {row.field: row.why for row in solve(space, graph, cut(graph, kv_group=1)).ledger}
    assert why["num_key_value_heads"] == "kv_group 2 → 1"
    assert "what it stood for while unset" in why["head_dim"]


@pytest.mark.parametrize(("kv", "heads", "head_dim"), [(4, 8, 8), (8, 8, 8), (2, 4, 4), (4, 16, 16)])
def test_half_the_heads_are_not_half_the_head_size(kv, heads, head_dim):
    """Sizes that collide: the shapes of half the kv groups are those of half the head size."""
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=head_dim,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    _, graph, space = probed_config(config)
    assert rows(solve(space, graph, cut(graph, kv_group=kv // 2))) == {
        "num_attention_heads": (heads, heads // 2),
        "num_key_value_heads": (kv, kv // 2),
    }


def test_a_count_of_the_same_value_is_not_a_width():
    """Three experts a token are not the three query heads of a kv group."""
    config = Qwen3MoeConfig(
        vocab_size=61,
        hidden_size=60,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=36,
        intermediate_size=88,
        max_position_embeddings=64,
    )
    _, graph, space = probed_config(config)
    found = rows(solve(space, graph, cut(graph, q_per_kv=1)))
    assert found == {"num_attention_heads": (6, 2), "head_dim": (None, 10)}


def refusal(family: str, **counts: int) -> str:
    _, graph, space = probed(family)
    with pytest.raises(InfeasibleError) as caught:
        solve(space, graph, cut(graph, **counts))
    return str(caught.value)


def test_validators_speak():
    said = refusal("llama", hidden=50)
    assert "cannot express hidden 60 → 50: LlamaConfig refuses" in said
    assert "The hidden size (50) is not a multiple of the number of attention heads (6)" in said
    assert "tried hidden_size = 50" in said
    assert solved("qwen3", hidden=50)  # the same shapes where no validator minds


def test_a_width_that_follows_another_is_refused():
    said = refusal("bloom", ffn=200)
    assert "cannot express ffn 240 → 200" in said
    assert "follows hidden_size alone" in said
    assert "follows n_embd alone" in refusal("gpt2", kv_group=4)


def test_a_constant_that_would_change_is_refused():
    said = refusal("gemma3", hidden=48)
    assert "embed_scale 7.74597 → 6.9282" in said
    assert "leave those axes" in said


def test_a_dim_that_no_field_moves_is_named():
    _, graph, space = probed("llama")
    deaf = replace(space, fields=())
    with pytest.raises(InfeasibleError, match=r"no field of the config changes lm_head.weight dim 1 \("):
        solve(deaf, graph, cut(graph, hidden=48))


def test_the_closest_config_is_shown():
    said = refusal("gpt2", hidden=42, kv_group=3)
    assert "closest is n_embd = 42" in said
    assert "is built 126, planned 90" in said


def test_blocks_that_no_field_counts_cannot_go():
    _, graph, space = probed("llama")
    plan = Plan("llama", (DropBlock("model.layers.1", 0),))
    with pytest.raises(InfeasibleError, match="does not build the planned model") as caught:
        solve(replace(space, depths=()), graph, plan)
    assert "model.layers.1.mlp.up_proj.weight: planned absent, the config builds (88, 60)" in str(
        caught.value
    )


def test_validators_of_the_whole_config_speak():
    _, graph, space = probed("gemma3")
    blind = replace(space, depths=tuple(replace(depth, lists=()) for depth in space.depths))
    with pytest.raises(InfeasibleError, match=r"planned model's config is refused: .*layer_types"):
        solve(blind, graph, Plan("gemma3_text", (DropBlock("model.layers.0", 0),)))


def test_another_rotation_is_refused():
    _, graph, space = probed("llama")
    free = names(graph, "head_dim", size=14)
    keeps = tuple(Keep(name, tuple(range(8)), 0) for name in free)
    with pytest.raises(InfeasibleError, match="cannot express head_dim 14 → 8"):
        solve(space, graph, Plan("llama", keeps))


def test_blocks_of_different_widths_are_refused_with_both():
    _, graph, space = probed("llama")
    first, second = names(graph, "ffn")
    plan = Plan("llama", (Keep(first, tuple(range(40)), 0), Keep(second, tuple(range(44)), 0)))
    with pytest.raises(InfeasibleError, match="different widths") as caught:
        solve(space, graph, plan)
    assert f"'{first}' keeps 40, '{second}' keeps 44" in str(caught.value)


def test_dropped_blocks_take_their_list_entries_along():
    _, graph, space = probed("gemma3")
    dropped, kept = graph.blocks
    keep = next(g.name for g in graph.of_kind("ffn") if g.block == kept.name)
    plan = Plan("gemma3_text", (DropBlock(dropped.name, 0), Keep(keep, tuple(range(50)), 1)))
    assert rows(solve(space, graph, plan)) == {
        "intermediate_size": (88, 50),
        "num_hidden_layers": (2, 1),
        "layer_types": (["sliding_attention", "full_attention"], ["full_attention"]),
    }


def test_a_list_of_widths_gives_each_block_its_own():
    config = Gemma3nTextConfig(
        vocab_size=61,
        vocab_size_per_layer_input=59,
        hidden_size=24,
        hidden_size_per_layer_input=10,
        intermediate_size=[36, 36],
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=14,
        num_kv_shared_layers=0,
        activation_sparsity_pattern=None,
        laurel_rank=9,
        altup_num_inputs=3,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=64,
    )
    _, graph, space = probed_config(config)
    first, second = names(graph, "ffn", size=36)
    plan = Plan(config.model_type, (Keep(first, tuple(range(20)), 0), Keep(second, tuple(range(23)), 0)))
    assert rows(solve(space, graph, plan)) == {
        "intermediate_size[0]": (36, 20),
        "intermediate_size[1]": (36, 23),
    }


def test_an_empty_plan_changes_nothing():
    _, graph, space = probed("llama")
    assert solve(space, graph, Plan("llama")).ledger == ()


def test_expected_values_of_a_product():
    widths = (
        Width("kv_group", 4, 3, "b", frozenset()),
        Width("q_per_kv", 2, 2, "b", frozenset()),
        Width("hidden", 64, 48, None, frozenset()),
    )
    assert expected_values(8, widths) == {6}
    assert expected_values(4, widths) == {3}
    assert expected_values(64, widths) == {48}
    assert expected_values(5, widths) == frozenset()
    assert expected_values(1, widths) == frozenset()
