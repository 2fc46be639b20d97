"""`compare` passes a right rebuild, and fails a wrong one with the numbers."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from surgeon.errors import VerifyError
from surgeon.graph import Axis, Graph, Group, Layout, Parameter, Site
from surgeon.plan import Keep, Plan
from surgeon.rebuild.forward import probe_tokens
from surgeon.rebuild.rebuild import rebuild
from surgeon.rebuild.skeleton import load_into, skeleton
from surgeon.rebuild.symmetry import randomised
from surgeon.rebuild.tensors import ModuleSource
from surgeon.rebuild.verify import compare
from tests.handmade import llama_graph


def llama(dtype=torch.float32):
    config = LlamaConfig(
        vocab_size=53,
        hidden_size=48,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=8,
        attn_implementation="eager",
    )
    return randomised(LlamaForCausalLM(config).eval()).to(dtype)


def cut(module, plan, graph, **fields):
    config = type(module.config)(**{**module.config.to_dict(), **fields})
    return load_into(
        skeleton(config, device="cpu", dtype=module.dtype), rebuild(ModuleSource(module), plan, graph)
    )


FFN = [Keep(f"layers.{i}.mlp.ffn", tuple(range(i, i + 30)), 0) for i in range(2)]


def test_right_rebuild_passes():
    module = llama()
    graph, plan = llama_graph(module.config), Plan("llama").add(FFN)
    small = cut(module, plan, graph, intermediate_size=30)
    found = compare(module, small, plan, graph, probe_tokens(module)).require()
    assert found.ok
    assert found.tolerance == 1e-5
    assert found.precision == "float64"
    assert found.agreement == 1
    assert found.tokens == 3 * 23
    assert found.to_dict()["ok"] is True


def test_weights_own_dtype():
    module = llama()
    graph, plan = llama_graph(module.config), Plan("llama").add(FFN)
    small = cut(module, plan, graph, intermediate_size=30)
    found = compare(module, small, plan, graph, probe_tokens(module), dtype=None).require()
    assert found.precision == "float32"
    assert found.tolerance == pytest.approx(2**-11.5)


def test_wrong_rebuild_is_an_error_with_numbers():
    module = llama()
    graph, plan = llama_graph(module.config), Plan("llama").add(FFN)
    other = Plan("llama").add([FFN[0], Keep("layers.1.mlp.ffn", tuple(range(2, 32)), 0)])
    small = cut(module, other, graph, intermediate_size=30)
    found = compare(module, small, plan, graph, probe_tokens(module))
    assert found.relative > 100 * found.tolerance
    with pytest.raises(VerifyError, match=r"masked original by [\d.e-]+, .* allowed is 1e-05"):
        found.require()


def test_not_a_number_is_never_ok():
    module = llama()
    graph = llama_graph(module.config)
    small = cut(module, Plan("llama"), graph)
    with torch.no_grad():
        small.lm_head.weight[0, 0] = float("nan")
    assert not compare(module, small, Plan("llama"), graph, probe_tokens(module)).ok


def test_cut_vocabulary_compares_kept_entries():
    module = llama()
    graph = llama_graph(module.config)
    kept = tuple(range(5, 50))
    plan = Plan("llama").add([Keep("vocab", kept, 0), Keep("vocab.out", kept, 0)])
    small = cut(module, plan, graph, vocab_size=45)
    assert compare(module, small, plan, graph, probe_tokens(module)).require().ok


def test_outputs_of_different_shape():
    module = llama()
    graph = llama_graph(module.config)
    plan = Plan("llama").add([Keep("vocab.out", tuple(range(45)), 0)])
    with pytest.raises(VerifyError, match=r"original is \[3, 23, 45\], of the rebuilt model \[3, 23, 53\]"):
        compare(module, module, plan, graph, probe_tokens(module))


def test_a_family_in_float64_throughout_is_held_to_rounding():
    config = GPT2Config(n_embd=24, n_layer=1, n_head=3, n_inner=40, vocab_size=53)
    module = randomised(GPT2LMHeadModel(config).eval()).float()
    inner = "transformer.h.0.mlp"
    sites = (
        Site(f"{inner}.c_fc.weight", 1, Layout.plain(40), "producer"),
        Site(f"{inner}.c_fc.bias", 0, Layout.plain(40), "pointwise"),
        Site(f"{inner}.c_proj.weight", 0, Layout.plain(40), "consumer"),
    )
    parameters = {name: Parameter(name, tuple(p.shape)) for name, p in module.named_parameters()}
    graph = Graph("x", (Group(Axis("ffn", "ffn", 40), sites),), (), parameters)
    plan = Plan("x").add([Keep("ffn", tuple(range(3, 33)), 0)])
    small = cut(module, plan, graph, n_inner=30)
    found = compare(module, small, plan, graph, probe_tokens(module)).require()
    assert found.tolerance == 1e-9
