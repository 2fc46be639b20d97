"""What the tracer finds in real families, against layouts written by hand and the symmetry proof."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from surgeon.graph import Sublayer
from surgeon.rebuild.symmetry import prove
from surgeon.trace import trace_module
from tests.handmade import llama_graph
from tests.trace.dump import port_text, site_text
from tests.trace.families import CONFIGS, FOUND, graph_of, real

ALL = pytest.mark.parametrize("name", CONFIGS)


@ALL
def test_the_groups_are_those_counted_by_hand(name):
    found = Counter(f"{group.axis}{'!' if group.locked else ''}" for group in graph_of(name).groups)
    assert dict(found) == FOUND[name]


@ALL
def test_every_unlocked_group_is_a_symmetry(name):
    module = real(name)
    graph = trace_module(module)
    proofs = prove(module, graph)
    assert [proof.axis for proof in proofs] == [group.name for group in graph.groups if not group.locked]
    assert [proof for proof in proofs if not (proof.passed and proof.sharp)] == []


@ALL
def test_a_module_without_weights_gives_the_same_graph(name):
    assert trace_module(real(name)) == graph_of(name)


@ALL
def test_every_position_of_every_parameter_belongs_to_a_group(name):
    graph = graph_of(name)
    owned = {
        (parameter.name, dim): np.zeros(size, dtype=bool)
        for parameter in graph.parameters.values()
        for dim, size in enumerate(parameter.shape)
        if not parameter.buffer
    }
    for group in graph.groups:
        for site in group.sites:
            if (site.param, site.dim) in owned:
                owned[site.param, site.dim][site.layout.positions().reshape(-1)] = True
    # a dim of one single head or one rotary pair has positions that no Axis larger than one owns
    lacking = {place for place, positions in owned.items() if not positions.all() and positions.size > 1}
    assert {param for param, _ in lacking} <= alone(name, graph)


def alone(name, graph):
    """Parameters in which an index set of size one (a rotary pair, here) lies beside larger ones."""
    fused = re.compile(r"query_key_value\.(weight|bias)$")
    return {param for param in graph.parameters if fused.search(param)} if name == "gptneox" else set()


REASONS = {
    "position": "indexed by constants or positions",
    "kv_group": "matched with constants that forward makes from the config",
    "channel": "its indices are picked one by one",
}


@ALL
def test_every_locked_group_says_why(name):
    locked = [group for group in graph_of(name).groups if group.locked]
    assert [group.name for group in locked if REASONS[group.kind] not in (group.locked or "")] == []


@ALL
def test_names_are_unique_and_say_the_place(name):
    graph = graph_of(name)
    names = [group.name for group in graph.groups]
    assert len(set(names)) == len(names)
    for group in graph.groups:
        if group.block is not None:
            number = graph.block(group.block).index
            assert all(f".{number}." in site.param for site in group.sites)
            part = next(p for p in graph.block(group.block).sublayers if p.name == group.sublayer)
            assert re.fullmatch(rf"layers\.{number}\.{part.role}\.{group.kind}(_\d)?", group.name)


# ------------------------------------------------------------------------------ Sites by hand

OFF_STREAM = {
    "llama-biased": r"[qkv]_proj\.bias|(gate|up)_proj\.bias",
    "qwen3": r"[qk]_norm",
    "qwen3-tied": r"[qk]_norm",
    "qwen2": r"[qkv]_proj\.bias",
    "gemma3": r"[qk]_norm",
    "gpt2": r"c_attn\.bias|c_fc\.bias",
    "gptneox": r"query_key_value\.bias|h_to_4h\.bias",
    "gptneox-serial": r"query_key_value\.bias|h_to_4h\.bias",
    "opt": r"[qkv]_proj\.bias|fc1\.bias",
    "bloom": r"query_key_value\.bias|dense_h_to_4h\.bias",
    "falcon-alibi": r"query_key_value\.bias|dense_h_to_4h\.bias",
}
"""Parameters that no dim of the residual stream runs through; all others hold it once, whole."""


@ALL
def test_hidden_is_every_tensor_of_the_residual_stream(name):
    graph = graph_of(name)
    hidden = graph.group("hidden")
    off = re.compile(OFF_STREAM.get(name, r"\Z."))
    expected = {p.name for p in graph.parameters.values() if not p.buffer and not off.search(p.name)}
    assert Counter(site.param for site in hidden.sites) == Counter(expected)
    assert {site_text(site).partition(" ")[2] for site in hidden.sites} == {f"0+[{hidden.size}:1]"}
    assert hidden.normalised
    assert hidden.locked is None


HERE = "model.layers.1."
SITES = {
    ("llama", "layers.1.attn.kv_group"): {
        HERE + "self_attn.q_proj.weight[0] 0+[2:42] 3:14 14:1",
        HERE + "self_attn.k_proj.weight[0] 0+[2:14] 14:1",
        HERE + "self_attn.v_proj.weight[0] 0+[2:14] 14:1",
        HERE + "self_attn.o_proj.weight[1] 0+[2:42] 3:14 14:1",
    },
    ("llama", "head_dim"): {
        f"model.layers.{i}.self_attn.{p}_proj.weight[0] {offset}+{modes} [7:1]"
        for i in range(2)
        for p, modes in (("q", "2:42 3:14"), ("k", "2:14"))
        for offset in (0, 7)
    }
    | {"model.rotary_emb.inv_freq[0] 0+[7:1]"},
    ("llama-biased", "layers.1.attn.q_per_kv"): {
        HERE + "self_attn.q_proj.weight[0] 0+2:42 [3:14] 14:1",
        HERE + "self_attn.q_proj.bias[0] 0+2:42 [3:14] 14:1",
        HERE + "self_attn.o_proj.weight[1] 0+2:42 [3:14] 14:1",
    },
    ("llama-mqa", "layers.1.attn.q_per_kv"): {
        HERE + "self_attn.q_proj.weight[0] 0+[6:14] 14:1",
        HERE + "self_attn.o_proj.weight[1] 0+[6:14] 14:1",
    },
    ("llama-tied", "vocab"): {
        "model.embed_tokens.weight[0] 0+[151:1]",
        "lm_head.weight[0] 0+[151:1]",
    },
    ("qwen3", "layers.1.attn.head_dim"): {
        HERE + "self_attn.v_proj.weight[0] 0+2:14 [14:1]",
        HERE + "self_attn.o_proj.weight[1] 0+2:42 3:14 [14:1]",
    },
    ("qwen2", "layers.1.attn.kv_group"): {
        HERE + "self_attn.q_proj.weight[0] 0+[2:30] 3:10 10:1",
        HERE + "self_attn.q_proj.bias[0] 0+[2:30] 3:10 10:1",
        HERE + "self_attn.k_proj.weight[0] 0+[2:10] 10:1",
        HERE + "self_attn.k_proj.bias[0] 0+[2:10] 10:1",
        HERE + "self_attn.v_proj.weight[0] 0+[2:10] 10:1",
        HERE + "self_attn.v_proj.bias[0] 0+[2:10] 10:1",
        HERE + "self_attn.o_proj.weight[1] 0+[2:30] 3:10 10:1",
    },
    ("phi3", "layers.1.attn.kv_group"): {
        HERE + "self_attn.qkv_proj.weight[0] 0+[2:30] 3:10 10:1",
        HERE + "self_attn.qkv_proj.weight[0] 60+[2:10] 10:1",
        HERE + "self_attn.qkv_proj.weight[0] 80+[2:10] 10:1",
        HERE + "self_attn.o_proj.weight[1] 0+[2:30] 3:10 10:1",
    },
    ("phi3", "layers.1.mlp.ffn"): {
        HERE + "mlp.gate_up_proj.weight[0] 0+[88:1]",
        HERE + "mlp.gate_up_proj.weight[0] 88+[88:1]",
        HERE + "mlp.down_proj.weight[1] 0+[88:1]",
    },
    ("gpt2", "layers.1.attn.kv_group"): {
        f"transformer.h.1.attn.c_attn.{leaf} {offset}+[6:10] 10:1"
        for leaf in ("weight[1]", "bias[0]")
        for offset in (0, 60, 120)
    }
    | {"transformer.h.1.attn.c_proj.weight[0] 0+[6:10] 10:1"},
    ("gpt2", "layers.1.mlp.ffn"): {
        "transformer.h.1.mlp.c_fc.weight[1] 0+[88:1]",
        "transformer.h.1.mlp.c_fc.bias[0] 0+[88:1]",
        "transformer.h.1.mlp.c_proj.weight[0] 0+[88:1]",
    },
    ("gptneox", "layers.1.attn.kv_group"): {
        "gpt_neox.layers.1.attention.query_key_value.weight[0] 0+[6:30] 30:1",
        "gpt_neox.layers.1.attention.query_key_value.bias[0] 0+[6:30] 30:1",
        "gpt_neox.layers.1.attention.dense.weight[1] 0+[6:10] 10:1",
    },
    ("gptneox", "layers.1.attn.head_dim_2"): {
        "gpt_neox.layers.1.attention.query_key_value.weight[0] 20+6:30 [10:1]",
        "gpt_neox.layers.1.attention.query_key_value.bias[0] 20+6:30 [10:1]",
        "gpt_neox.layers.1.attention.dense.weight[1] 0+6:10 [10:1]",
    },
    ("bloom", "layers.1.attn.head_dim"): {
        "transformer.h.1.self_attention.query_key_value.weight[0] 0+6:30 3:10 [10:1]",
        "transformer.h.1.self_attention.query_key_value.bias[0] 0+6:30 3:10 [10:1]",
        "transformer.h.1.self_attention.dense.weight[1] 0+6:10 [10:1]",
    },
    ("falcon-grouped", "layers.1.attn.kv_group"): {
        "transformer.h.1.self_attention.query_key_value.weight[0] 0+[2:50] 5:10 10:1",
        "transformer.h.1.self_attention.dense.weight[1] 0+[2:30] 3:10 10:1",
    },
    ("falcon-grouped", "layers.1.attn.q_per_kv"): {
        "transformer.h.1.self_attention.query_key_value.weight[0] 0+2:50 [3:10] 10:1",
        "transformer.h.1.self_attention.dense.weight[1] 0+2:30 [3:10] 10:1",
    },
    ("falcon-multi-query", "layers.1.attn.q_per_kv"): {
        "transformer.h.1.self_attention.query_key_value.weight[0] 0+[6:10] 10:1",
        "transformer.h.1.self_attention.dense.weight[1] 0+[6:10] 10:1",
    },
    ("mixtral", "layers.1.mlp.expert"): {
        HERE + "mlp.gate.weight[0] 0+[8:1]",
        HERE + "mlp.experts.gate_up_proj[0] 0+[8:1]",
        HERE + "mlp.experts.down_proj[0] 0+[8:1]",
    },
    ("mixtral", "layers.1.mlp.ffn"): {
        HERE + "mlp.experts.gate_up_proj[1] 0+[88:1]",
        HERE + "mlp.experts.gate_up_proj[1] 88+[88:1]",
        HERE + "mlp.experts.down_proj[2] 0+[88:1]",
    },
}


@pytest.mark.parametrize(("name", "axis"), SITES)
def test_sites_are_those_written_by_hand(name, axis):
    sites = [site_text(site) for site in graph_of(name).group(axis).sites]
    assert len(set(sites)) == len(sites)
    assert set(sites) == SITES[name, axis]


def test_vocab_enters_by_the_ids_and_leaves_by_the_logits():
    ports = [port_text(port) for port in graph_of("llama-tied").group("vocab").ports]
    assert ports == ["input_ids[values] 0+[151:1]", "logits[2] 0+[151:1]"]
    split = [[port_text(p) for p in g.ports] for g in graph_of("llama").of_kind("vocab")]
    assert split == [[port] for port in ports]


# ------------------------------------------------------------------------------ the whole of one


def places(group, tied):
    """Kind, size, and every owned position; roles where storage is not shared."""
    sites = {
        (s.param, s.dim, "shared" if s.param in tied else s.role, s.layout.positions().tobytes())
        for s in group.sites
    }
    ports = {(p.name, p.direction, p.dim, p.layout.positions().tobytes()) for p in group.ports}
    return (group.kind, group.size, group.block, group.sublayer, frozenset(sites), frozenset(ports))


@pytest.mark.parametrize("name", ["llama", "llama-tied", "llama-mha"])
def test_the_traced_graph_equals_the_handmade_one(name):
    config = CONFIGS[name]()
    graph, made = graph_of(name), llama_graph(config)
    tied = {"model.embed_tokens.weight", "lm_head.weight"} if config.tie_word_embeddings else set()
    rotary = graph.group("head_dim")
    found = [places(group, tied) for group in graph.groups if group is not rotary]
    assert len(found) == len(made.groups)
    assert set(found) == {places(group, tied) for group in made.groups}
    assert graph.stacks == made.stacks
    assert {n: p for n, p in graph.parameters.items() if not p.buffer} == made.parameters
    assert graph.model_type == made.model_type


# ------------------------------------------------------------------------------ Stacks

STACKS = {
    "llama": (
        "model.layers",
        Sublayer("self_attn", "attn", ("input_layernorm", "self_attn")),
        Sublayer("mlp", "mlp", ("post_attention_layernorm", "mlp")),
    ),
    "gemma3": (
        "model.layers",
        Sublayer("self_attn", "attn", ("input_layernorm", "self_attn", "post_attention_layernorm")),
        Sublayer("mlp", "mlp", ("pre_feedforward_layernorm", "mlp", "post_feedforward_layernorm")),
    ),
    "phi3": (
        "model.layers",
        Sublayer("self_attn", "attn", ("input_layernorm", "self_attn")),
        Sublayer("mlp", "mlp", ("post_attention_layernorm", "mlp")),
    ),
    "gpt2": (
        "transformer.h",
        Sublayer("attn", "attn", ("ln_1", "attn")),
        Sublayer("mlp", "mlp", ("ln_2", "mlp")),
    ),
    "gptneox": (
        "gpt_neox.layers",
        Sublayer("attention", "attn", ("input_layernorm", "attention")),
        Sublayer("mlp", "mlp", ("post_attention_layernorm", "mlp")),
    ),
    "gptneox-serial": (
        "gpt_neox.layers",
        Sublayer("attention", "attn", ("input_layernorm", "attention")),
        Sublayer("mlp", "mlp", ("post_attention_layernorm", "mlp")),
    ),
    "opt": (
        "model.decoder.layers",
        Sublayer("self_attn", "attn", ("self_attn_layer_norm", "self_attn")),
        Sublayer("fc1", "mlp", ("final_layer_norm", "fc1", "activation_fn", "fc2")),
    ),
    "falcon-multi-query": (
        "transformer.h",
        Sublayer("self_attention", "attn", ("input_layernorm", "self_attention")),
        Sublayer("mlp", "mlp", ("input_layernorm", "mlp")),
    ),
    "falcon-grouped": (
        "transformer.h",
        Sublayer("self_attention", "attn", ("ln_attn", "self_attention")),
        Sublayer("mlp", "mlp", ("ln_mlp", "mlp")),
    ),
    "mixtral": (
        "model.layers",
        Sublayer("self_attn", "attn", ("input_layernorm", "self_attn")),
        Sublayer("mlp", "mlp", ("post_attention_layernorm", "mlp")),
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_the_stack_and_its_sublayers(name):
    container, *parts = STACKS[name]
    (stack,) = graph_of(name).stacks
    assert (stack.container, stack.axis) == (container, "hidden")
    assert [(b.name, b.index) for b in stack.blocks] == [(f"{container}.{i}", i) for i in range(2)]
    for block in stack.blocks:
        expected = tuple(
            Sublayer(
                f"{block.name}.{part.name}",
                part.role,
                tuple(f"{block.name}.{module}" for module in part.modules),
                joins=block.name,
            )
            for part in parts
        )
        assert block.sublayers == expected


# ------------------------------------------------------------------------------ sizes that collide


@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (10, 2), (14, 2), (15, 5), (12, 3)])
def test_small_odd_head_counts_are_not_taken_for_batch_or_length(heads, groups):
    from surgeon.rebuild.skeleton import skeleton
    from tests.conftest import llama_config

    config = llama_config(
        num_attention_heads=heads, num_key_value_heads=groups, hidden_size=8 * heads, head_dim=8
    )
    graph = trace_module(skeleton(config))
    assert [group.size for group in graph.of_kind("q_per_kv")] == [heads // groups] * 3
    assert [group.size for group in graph.of_kind("kv_group")] == [groups] * 3
    assert all(group.locked is None for group in graph.of_kind("q_per_kv", "kv_group", "ffn"))
