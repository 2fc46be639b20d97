"""Small models of the families that the tracer is held to, their sizes pairwise different.

`FOUND` lists, by hand, the Groups of each: ``kind(size)``, a ``!`` where it must be locked, and how
many there are in two layers.
"""

from __future__ import annotations

import functools

import torch
import transformers as hf

from surgeon.graph import Graph
from surgeon.rebuild.skeleton import architecture, skeleton
from surgeon.rebuild.symmetry import randomised
from surgeon.trace import trace_module

GAIN = 2.0
"""How much larger than unit gain the matrices of `real` are: attention must not be flat."""
BASE = {
    "vocab_size": 151,
    "hidden_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT = {"vocab_size": 151, "n_embd": 60, "n_layer": 2, "n_head": 6, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**BASE, "num_key_value_heads": 2, "intermediate_size": 88}
FREE = {**GROUPED, "head_dim": 14}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
FALCON = {**BASE, "ffn_hidden_size": 88}

CONFIGS = {
    "llama": lambda: hf.LlamaConfig(**FREE, tie_word_embeddings=False),
    "llama-tied": lambda: hf.LlamaConfig(**FREE, tie_word_embeddings=True),
    "llama-mha": lambda: hf.LlamaConfig(**{**FREE, "num_key_value_heads": 6}, tie_word_embeddings=False),
    "llama-mqa": lambda: hf.LlamaConfig(**{**FREE, "num_key_value_heads": 1}, tie_word_embeddings=False),
    "llama-biased": lambda: hf.LlamaConfig(
        **FREE, tie_word_embeddings=False, attention_bias=True, mlp_bias=True
    ),
    "qwen3": lambda: hf.Qwen3Config(**FREE, tie_word_embeddings=False),
    "qwen3-tied": lambda: hf.Qwen3Config(**FREE, tie_word_embeddings=True),
    "qwen2": lambda: hf.Qwen2Config(**GROUPED, tie_word_embeddings=False),
    "gemma3": lambda: hf.Gemma3TextConfig(**FREE, **SLIDING),
    "phi3": lambda: hf.Phi3Config(**GROUPED, tie_word_embeddings=False),
    "gpt2": lambda: hf.GPT2Config(**GPT, n_positions=64, n_inner=88),
    "gptneox": lambda: hf.GPTNeoXConfig(**BASE, intermediate_size=88),
    "gptneox-serial": lambda: hf.GPTNeoXConfig(
        **{**BASE, "hidden_size": 96}, intermediate_size=88, use_parallel_residual=False
    ),
    "opt": lambda: hf.OPTConfig(**BASE, ffn_dim=88, word_embed_proj_dim=60),
    "bloom": lambda: hf.BloomConfig(
        vocab_size=151, hidden_size=60, n_layer=2, n_head=6, bos_token_id=1, eos_token_id=2
    ),
    "falcon-multi-query": lambda: hf.FalconConfig(**FALCON, multi_query=True),
    "falcon-grouped": lambda: hf.FalconConfig(**FALCON, num_kv_heads=2, new_decoder_architecture=True),
    "falcon-alibi": lambda: hf.FalconConfig(**FALCON, alibi=True, multi_query=False, bias=True),
    "mixtral": lambda: hf.MixtralConfig(**FREE, num_local_experts=8, tie_word_embeddings=False),
}

LLAMA = {
    "vocab(151)": 2,
    "hidden(60)": 1,
    "kv_group(2)": 2,
    "q_per_kv(3)": 2,
    "head_dim(14)": 2,
    "head_dim(7)": 1,
    "ffn(88)": 2,
}
TIED = {"vocab(151)": 1}
NARROW = {
    "vocab(151)": 2,
    "hidden(60)": 1,
    "kv_group(2)": 2,
    "q_per_kv(3)": 2,
    "head_dim(10)": 2,
    "head_dim(5)": 1,
    "ffn(88)": 2,
}
FOUND: dict[str, dict[str, int]] = {
    "llama": LLAMA,
    "llama-tied": {**LLAMA, **TIED},
    "llama-mha": {
        **{key: count for key, count in LLAMA.items() if key not in ("kv_group(2)", "q_per_kv(3)")},
        "kv_group(6)": 2,
    },
    "llama-mqa": {
        **{key: count for key, count in LLAMA.items() if key not in ("kv_group(2)", "q_per_kv(3)")},
        "q_per_kv(6)": 2,
    },
    "llama-biased": LLAMA,
    "qwen3": LLAMA,
    "qwen3-tied": {**LLAMA, **TIED},
    "qwen2": NARROW,
    "gemma3": {**LLAMA, **TIED, "head_dim(7)": 2},
    "phi3": NARROW,
    "gpt2": {
        "vocab(151)": 1,
        "hidden(60)": 1,
        "position(64)!": 1,
        "kv_group(6)": 2,
        "head_dim(10)": 4,
        "ffn(88)": 2,
    },
    "gptneox": {
        "vocab(151)": 2,
        "hidden(60)": 1,
        "kv_group(6)": 2,
        "head_dim(10)": 2,
        "head_dim(8)": 2,
        "ffn(88)": 2,
    },
    "gptneox-serial": {
        "vocab(151)": 2,
        "hidden(96)": 1,
        "kv_group(6)": 2,
        "head_dim(16)": 2,
        "head_dim(12)": 2,
        "head_dim(2)": 1,
        "ffn(88)": 2,
    },
    "opt": {
        "vocab(151)": 1,
        "hidden(60)": 1,
        "position(66)!": 1,
        "kv_group(6)": 2,
        "head_dim(10)": 4,
        "ffn(88)": 2,
    },
    "bloom": {
        "vocab(151)": 1,
        "hidden(60)": 1,
        "kv_group(4)!": 1,  # slopes are made for the power of two below, then for the rest
        "kv_group(2)!": 1,
        "head_dim(10)": 2,
        "ffn(240)": 2,
    },
    "falcon-multi-query": {
        "vocab(151)": 1,
        "hidden(60)": 1,
        "q_per_kv(6)": 2,
        "head_dim(5)": 1,
        "ffn(88)": 2,
    },
    "falcon-grouped": {
        "vocab(151)": 1,
        "hidden(60)": 1,
        "kv_group(2)": 2,
        "q_per_kv(3)": 2,
        "head_dim(5)": 1,
        "ffn(88)": 2,
    },
    "falcon-alibi": {
        "vocab(151)": 1,
        "hidden(60)": 1,
        "kv_group(4)!": 1,  # slopes are made for the power of two below, then for the rest
        "kv_group(2)!": 1,
        "head_dim(10)": 2,
        "ffn(88)": 2,
    },
    "mixtral": {**LLAMA, "expert(8)": 2},
}


def bare(name: str):
    """The model on the meta device."""
    return skeleton(CONFIGS[name]())


def real(name: str):
    """The model in float64, its weights drawn so large that every structure matters."""
    config = CONFIGS[name]()
    torch.manual_seed(0)
    module = randomised(architecture(config)(config).eval())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(GAIN if parameter.ndim > 1 else 1)
    return module


@functools.cache
def graph_of(name: str) -> Graph:
    """The traced Graph of `bare`, made once."""
    return trace_module(bare(name))
