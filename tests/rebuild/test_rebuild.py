"""The rebuild stream: assign, cut, drop, renumber, tie."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from transformers import LlamaConfig, LlamaForCausalLM

from surgeon.errors import RebuildError, SurgeonError
from surgeon.graph import Block, Stack
from surgeon.plan import Assign, DropBlock, Keep, Plan
from surgeon.rebuild.rebuild import rebuild, renamed
from surgeon.rebuild.tensors import ModuleSource
from tests.handmade import llama_graph


def model(tied=False, layers=3):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=53,
        hidden_size=48,
        intermediate_size=40,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=8,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def stream(module, *edits, values=None):
    graph = llama_graph(module.config)
    plan = Plan("llama").add(edits, values)
    return dict(rebuild(ModuleSource(module), plan, graph))


def test_empty_plan_copies_everything():
    module = model()
    out = stream(module)
    state = module.state_dict()
    assert out.keys() == state.keys()
    assert all(torch.equal(out[name], state[name]) for name in out)
    assert not any(out[name].data_ptr() == state[name].data_ptr() for name in out)


def test_cut_slices_every_site():
    module = model()
    out = stream(module, Keep("layers.1.mlp.ffn", (0, 3, 39), 0), Keep("layers.1.attn.kv_group", (2,), 0))
    old = module.model.layers[1]
    at = "model.layers.1."
    assert torch.equal(out[at + "mlp.gate_proj.weight"], old.mlp.gate_proj.weight[[0, 3, 39]])
    assert torch.equal(out[at + "mlp.down_proj.weight"], old.mlp.down_proj.weight[:, [0, 3, 39]])
    assert torch.equal(out[at + "self_attn.q_proj.weight"], old.self_attn.q_proj.weight[32:48])
    assert torch.equal(out[at + "self_attn.o_proj.weight"], old.self_attn.o_proj.weight[:, 32:48])
    assert torch.equal(out[at + "self_attn.v_proj.weight"], old.self_attn.v_proj.weight[16:24])
    assert out[at + "mlp.down_proj.weight"].is_contiguous()


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 47), min_size=1), st.sets(st.integers(0, 39), min_size=1))
def test_two_axes_of_one_tensor(hidden, ffn):
    module = model(layers=1)
    hidden, ffn = tuple(sorted(hidden)), tuple(sorted(ffn))
    out = stream(module, Keep("hidden", hidden, 0), Keep("layers.0.mlp.ffn", ffn, 1))
    full = module.model.layers[0].mlp.up_proj.weight
    assert torch.equal(out["model.layers.0.mlp.up_proj.weight"], full[list(ffn)][:, list(hidden)])


def test_assigned_value_is_cut_afterwards():
    module = model()
    name = "model.layers.0.mlp.down_proj.weight"
    value = torch.arange(48 * 40, dtype=torch.float64).reshape(48, 40)
    out = stream(module, Assign(name, "f"), Keep("layers.0.mlp.ffn", (1, 2), 0), values={name: value})
    assert out[name].dtype == torch.float32
    assert torch.equal(out[name], value[:, [1, 2]].float())


def test_assigned_value_of_another_shape():
    name = "model.norm.weight"
    with pytest.raises(RebuildError, match=r"assigned to 'model.norm.weight' is \[3\], the tensor is \[48\]"):
        stream(model(), Assign(name, "f"), values={name: torch.zeros(3)})


def test_dropped_block_moves_later_ones_up():
    module = model()
    out = stream(module, DropBlock("model.layers.1", 0), Keep("layers.2.mlp.ffn", (5,), 1))
    names = {name.split(".")[2] for name in out if name.startswith("model.layers.")}
    assert names == {"0", "1"}
    up = module.model.layers[2].mlp.up_proj.weight
    assert torch.equal(out["model.layers.1.mlp.up_proj.weight"], up[[5]])


def test_dropping_an_unknown_block():
    graph = llama_graph(model().config)
    with pytest.raises(SurgeonError, match=r"no block 'model\.layers\.9'"):
        renamed((), Plan("llama", (DropBlock("model.layers.9", 0),)), graph)


def test_tied_names_share_one_tensor():
    out = stream(model(tied=True), Keep("hidden", (1, 5), 0), Keep("vocab", tuple(range(50)), 0))
    assert out["lm_head.weight"].data_ptr() == out["model.embed_tokens.weight"].data_ptr()
    assert out["lm_head.weight"].shape == (50, 2)


def test_value_assigned_under_the_second_name():
    module = model(tied=True)
    value = torch.ones(53, 48)
    out = stream(module, Assign("lm_head.weight", "f"), values={"lm_head.weight": value})
    assert torch.equal(out["model.embed_tokens.weight"], value)


def test_tied_names_cut_differently():
    module = model(tied=True)
    graph = llama_graph(LlamaConfig(**{**module.config.to_dict(), "tie_word_embeddings": False}))
    parameters = llama_graph(module.config).parameters
    object.__setattr__(graph, "parameters", parameters)
    plan = Plan("llama", (Keep("vocab", (0, 1), 0),))
    with pytest.raises(RebuildError, match="cuts them differently"):
        dict(rebuild(ModuleSource(module), plan, graph))


def test_source_knows_its_names():
    source = ModuleSource(model())
    assert source.shape("model.norm.weight") == (48,)
    with pytest.raises(RebuildError, match=r"no tensor 'model.norm.weigh'[\s\S]*'model.norm.weight'"):
        source.get("model.norm.weigh")


def test_blocks_without_numbers_cannot_move_up():
    graph = llama_graph(model().config)
    named = Stack("model", (Block("model.first", 0), Block("model.second", 1)))
    object.__setattr__(graph, "stacks", (named,))
    with pytest.raises(RebuildError, match=r"'model\.first' has no number"):
        renamed(("model.second.w",), Plan("llama", (DropBlock("model.first", 0),)), graph)
