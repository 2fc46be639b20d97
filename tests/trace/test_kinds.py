"""Kinds that look like an MLP's width and are none."""

from __future__ import annotations

import transformers as hf

from surgeon.rebuild.skeleton import skeleton
from surgeon.trace import trace_module


def kinds(config, name):
    config.architectures = [name]
    graph = trace_module(skeleton(config))
    return {(group.kind, group.size) for group in graph.groups if group.locked is None}


def test_heads_of_a_convolution_are_heads():
    config = hf.ConvBertConfig(
        hidden_size=48,
        embedding_size=48,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=6,
        head_ratio=2,
        vocab_size=61,
        max_position_embeddings=32,
    )
    assert {found for found in kinds(config, "ConvBertForMaskedLM") if found[0] in ("ffn", "kv_group")} == {
        ("ffn", 56),
        ("kv_group", 3),
    }


def test_copies_of_the_residual_stream_are_no_mlp():
    config = hf.DeepseekV4Config(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=16,
        moe_intermediate_size=20,
        n_routed_experts=6,
        num_experts_per_tok=2,
        vocab_size=61,
        hc_mult=3,
        max_position_embeddings=64,
        layer_types=["sliding_attention", "sliding_attention"],
        mlp_layer_types=["moe", "moe"],
        q_lora_rank=12,
        o_lora_rank=12,
        o_groups=2,
        sliding_window=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    found = kinds(config, "DeepseekV4ForCausalLM")
    assert ("ffn", 20) in found
    assert ("channel", 3) in found
    assert ("ffn", 3) not in found
