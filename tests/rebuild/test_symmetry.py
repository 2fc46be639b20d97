"""The symmetry proof passes right Groups and catches wrong ones."""

from __future__ import annotations

import types
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from surgeon.errors import VerifyError
from surgeon.graph import Axis, Graph, Group, Layout, Mode, Parameter, Site
from surgeon.rebuild.forward import probe_tokens
from surgeon.rebuild.symmetry import prove, randomised
from tests.handmade import llama_graph


def llama(**changes):
    fields = {
        "vocab_size": 53,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 8,
        "attn_implementation": "eager",
    }
    return randomised(LlamaForCausalLM(LlamaConfig(**{**fields, **changes})).eval())


@pytest.mark.parametrize("tied", [False, True])
def test_every_right_group_passes(tied):
    module = llama(tie_word_embeddings=tied)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    proofs = prove(module, llama_graph(module.config))
    assert [proof.axis for proof in proofs if not (proof.passed and proof.sharp)] == []
    assert {proof.tolerance for proof in proofs} == {1e-5}
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def without(group, place):
    return replace(group, sites=group.sites[:place] + group.sites[place + 1 :])


@pytest.mark.parametrize(
    "axis", ["hidden", "vocab", "layers.1.mlp.ffn", "layers.0.attn.kv_group", "layers.0.attn.q_per_kv"]
)
def test_a_missing_site_is_caught(axis):
    module = llama(tie_word_embeddings=axis == "vocab")
    group = llama_graph(module.config).group(axis)
    wrong = [without(group, place) for place in range(len(group.sites))]
    if axis == "vocab":  # the two sites are one tensor, so that either alone is the whole group
        wrong = [replace(group, ports=group.ports[:1]), replace(group, ports=group.ports[1:])]
    proofs = prove(module, llama_graph(module.config), wrong)
    assert [proof.error for proof in proofs if proof.passed] == []


def test_a_wrong_stride_is_caught():
    module = llama()
    group = llama_graph(module.config).group("layers.0.attn.kv_group")
    swapped = Layout(0, (Mode(2, 24), Mode(3, 8), Mode(8, 1)), 1)
    sites = tuple(
        replace(site, layout=swapped) if len(site.layout.modes) == 3 else site for site in group.sites
    )
    (proof,) = prove(module, llama_graph(module.config), [replace(group, sites=sites)])
    assert not proof.passed
    assert proof.error > 1000 * proof.tolerance


def test_two_axes_taken_for_one_are_caught():
    module = llama(intermediate_size=48)
    graph = llama_graph(module.config)
    mixed = replace(graph.group("hidden"), sites=graph.group("hidden").sites + graph.groups[3].sites[:1])
    (proof,) = prove(module, graph, [mixed])
    assert not proof.passed


def test_a_model_in_float64_throughout_is_held_to_rounding():
    module = randomised(GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=1, n_head=3, vocab_size=53)).eval())
    inner = "transformer.h.0.mlp"
    sites = (
        Site(f"{inner}.c_fc.weight", 1, Layout.plain(96), "producer"),
        Site(f"{inner}.c_fc.bias", 0, Layout.plain(96), "pointwise"),
        Site(f"{inner}.c_proj.weight", 0, Layout.plain(96), "consumer"),
    )
    group = Group(Axis("ffn", "ffn", 96), sites)
    parameters = {name: Parameter(name, tuple(p.shape)) for name, p in module.named_parameters()}
    (proof,) = prove(module, Graph("x", (group,), (), parameters))
    assert proof.tolerance == 1e-9
    assert proof.passed


def test_locked_groups_are_left_out():
    module = llama()
    graph = llama_graph(module.config).map_groups(lambda g: g.lock(["no"]) if g.kind != "ffn" else g)
    assert [proof.axis for proof in prove(module, graph)] == ["layers.0.mlp.ffn", "layers.1.mlp.ffn"]


def test_weights_are_needed():
    module = llama()
    with pytest.raises(VerifyError, match="meta device"):
        prove(module.to("meta"), llama_graph(module.config))


def test_probe_tokens_come_from_the_config_where_there_are_several_embeddings():
    module = torch.nn.Linear(2, 3)
    module.config = types.SimpleNamespace(vocab_size=7)
    assert probe_tokens(module).shape == (3, 23)
    assert probe_tokens(module).max() == 6


def test_tokens_need_an_embedding():
    module = torch.nn.Linear(2, 2)
    with pytest.raises(VerifyError, match="Linear has no input embedding"):
        prove(module, Graph("x", (), (), {}))


def test_output_without_numbers():
    class Silent(torch.nn.Module):
        def forward(self, input_ids):
            return {"ids": input_ids}

    ids = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(VerifyError, match="returned dict, which holds no floating-point tensor"):
        prove(Silent(), Graph("x", (), (), {}), tokens=ids)
