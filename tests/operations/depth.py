"""Small models and States for tests of operations on the depth of a model."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import transformers as hf

from surgeon.api.planning import Traced
from surgeon.calibrate import Bench, Samples, rows
from surgeon.operations import State
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource, architecture, config_of, probe, randomised
from surgeon.trace import trace_module

BASE = {
    "vocab_size": 89,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
FREE = {**BASE, "head_dim": 10}


def _types(count: int, every: int) -> list[str]:
    return ["full_attention" if (n + 1) % every == 0 else "sliding_attention" for n in range(count)]


CONFIGS = {
    "dense": lambda: hf.LlamaConfig(**FREE, num_hidden_layers=6),
    "sliding": lambda: hf.Gemma3TextConfig(
        **FREE, num_hidden_layers=6, layer_types=_types(6, 3), sliding_window=4
    ),
    "moe": lambda: hf.Qwen3MoeConfig(
        **FREE,
        num_hidden_layers=6,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        mlp_only_layers=[1, 4],
    ),
    "hybrid": lambda: hf.JambaConfig(
        **BASE,
        num_hidden_layers=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        use_mamba_kernels=False,
        mamba_d_state=6,
        mamba_dt_rank=5,
    ),
    "encoder": lambda: hf.BertConfig(
        vocab_size=89,
        hidden_size=48,
        num_hidden_layers=6,
        num_attention_heads=6,
        intermediate_size=40,
        max_position_embeddings=64,
        architectures=["BertForMaskedLM"],
    ),
    "scaled by depth": lambda: hf.GPT2Config(
        vocab_size=89,
        n_embd=48,
        n_layer=6,
        n_head=6,
        n_positions=64,
        scale_attn_by_inverse_layer_idx=True,
        bos_token_id=1,
        eos_token_id=None,
    ),
}


def model_of(name: str, seed: int = 0, **changes: object):
    """The model in float64, weights drawn so large that every structure matters."""
    config = CONFIGS[name]()
    for field, value in changes.items():
        setattr(config, field, value)
    torch.manual_seed(seed)
    return randomised(architecture(config)(config).eval().double(), seed)


def samples_of(vocab: int, count: int = 4, length: int = 19, seed: int = 3) -> Samples:
    """Random token rows."""
    ids = torch.randint(vocab, (count, length), generator=torch.Generator().manual_seed(seed))
    return rows(ids.tolist())


def state_of(module, samples: Samples | None = None, limited: bool = True) -> State:
    """What the first step of a recipe finds."""
    graph = trace_module(module)
    found = samples or samples_of(module.config.vocab_size)
    bench = Bench(graph, lambda: module, lambda: found, lambda stage, done, total: None)
    bare = State(
        graph,
        Plan(graph.model_type),
        source=ModuleSource(module),
        measure=bench.measure,
        bench=bench,
    )
    if not limited:
        return bare
    known = Traced(graph, probe(config_of(module), graph))
    return replace(bare, config_limits=known.limits, inexpressible=known.refusal)


def without(module, container: str, places):
    """A copy of `module` whose list of blocks lacks `places`: what transformers itself makes of that."""
    clone = copy.deepcopy(module)
    blocks = clone.get_submodule(container)
    for place in sorted(places, reverse=True):
        del blocks[place]
    return clone
