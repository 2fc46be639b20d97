"""Small models with routed experts, of every way to route that the masked view is held to."""

from __future__ import annotations

import torch
import transformers as hf

from surgeon.graph import Graph
from surgeon.rebuild.skeleton import architecture, skeleton
from surgeon.rebuild.symmetry import randomised
from surgeon.trace import trace_module

BASE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MANY = {**BASE, "moe_intermediate_size": 14, "num_experts_per_tok": 3}
LATENT = {
    **MANY,
    "num_key_value_heads": 4,
    "q_lora_rank": 10,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 7,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
GROUPED = {**LATENT, "n_routed_experts": 15, "num_experts_per_tok": 4, "n_group": 3, "topk_group": 2}

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Fields that hold how many experts there are."""

CONFIGS = {
    "softmax, renormalised": lambda: hf.MixtralConfig(
        **BASE, head_dim=6, num_local_experts=6, num_experts_per_tok=2
    ),
    "softmax, renormalised by a flag": lambda: hf.Qwen3MoeConfig(
        **MANY, head_dim=6, num_experts=9, norm_topk_prob=True
    ),
    "softmax, as it is": lambda: hf.OlmoeConfig(
        **BASE, num_experts=9, num_experts_per_tok=3, norm_topk_prob=False
    ),
    "softmax of the chosen, biased": lambda: hf.GptOssConfig(
        **BASE, head_dim=6, num_local_experts=7, num_experts_per_tok=3, sliding_window=16
    ),
    "softmax, groups by their best": lambda: hf.DeepseekV2Config(
        **GROUPED, topk_method="group_limited_greedy"
    ),
    "sigmoid, groups by their two best": lambda: hf.DeepseekV3Config(**GROUPED),
    "sigmoid, corrected, one group": lambda: hf.Glm4MoeConfig(
        **MANY, head_dim=6, n_routed_experts=9, n_group=1, topk_group=1, first_k_dense_replace=1
    ),
    "all experts run, gates on their inputs": lambda: hf.Llama4TextConfig(
        **BASE,
        head_dim=6,
        num_local_experts=5,
        num_experts_per_tok=1,
        intermediate_size_mlp=16,
        interleave_moe_layer_step=1,
        attention_chunk_size=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "bias at the block, not at the router": lambda: hf.Lfm2MoeConfig(
        **MANY, num_experts=9, num_dense_layers=1, layer_types=["conv", "full_attention"]
    ),
    "softmax after the choice": lambda: hf.GraniteMoeConfig(
        **BASE, num_local_experts=9, num_experts_per_tok=3
    ),
}


def routed(name: str) -> tuple[hf.PreTrainedModel, Graph]:
    """The model in float64 with weights that matter, correction biases too, and its Graph."""
    config = CONFIGS[name]()
    torch.manual_seed(0)
    model = randomised(architecture(config)(config).eval())
    for path, buffer in model.named_buffers():
        if "bias" in path:
            buffer.add_(0.3 * torch.randn(buffer.shape, dtype=buffer.dtype))
    return model, trace_module(skeleton(CONFIGS[name]()))


def smaller(name: str, fewer: int, **fields: int) -> hf.PreTrainedModel:
    """A model of the same config but for `fewer` experts and `fields`, its weights unset."""
    config = CONFIGS[name]().to_dict()
    held = {field: config[field] - fewer for field in EXPERTS if isinstance(config.get(field), int)}
    return skeleton(type(CONFIGS[name]())(**{**config, **held, **fields}))
