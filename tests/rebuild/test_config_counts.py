"""Counts that no tensor shows: a field that only a ratio in the code reads follows the heads it counts."""

from __future__ import annotations

from transformers import DeepseekV3Config

from surgeon.plan import Keep, Plan
from surgeon.rebuild import probe, solve
from surgeon.rebuild.skeleton import skeleton
from surgeon.trace import trace_module


def test_heads_of_latent_attention_are_counted_twice():
    """As many experts as heads, so that a product of sizes leaves the second count open."""
    config = DeepseekV3Config(
        vocab_size=151,
        hidden_size=48,
        intermediate_size=80,
        moe_intermediate_size=28,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        n_routed_experts=8,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        q_lora_rank=20,
        kv_lora_rank=24,
        qk_nope_head_dim=16,
        qk_rope_head_dim=10,
        v_head_dim=14,
        max_position_embeddings=64,
    )
    graph = trace_module(skeleton(config))
    heads = graph.of_kind("kv_group")
    assert [group.size for group in heads] == [8, 8]
    plan = Plan(graph.model_type).add([Keep(group.name, tuple(range(6)), 0) for group in heads])
    changed = {row.field: row.new for row in solve(probe(config, graph), graph, plan).ledger}
    assert changed == {"num_attention_heads": 6, "num_key_value_heads": 6}
