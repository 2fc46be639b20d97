"""Which field moves what: checked against what the families' documentation says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig

from surgeon.errors import RebuildError
from surgeon.rebuild import signature
from surgeon.rebuild.config_probe import ConfigSpace, Field, probe
from surgeon.rebuild.config_tree import leaves, path_text, sought_names, vary
from surgeon.rebuild.signature import measure
from tests.rebuild.config_cases import config_with, probed, probed_config


def field(space: ConfigSpace, name: str) -> Field:
    return next(f for f in space.fields if f.name == name)


def moved(space: ConfigSpace, name: str) -> set[str]:
    return {f"{param.removeprefix('model.layers.0.')}:{dim}" for param, dim in field(space, name).dims}


def test_widths_of_grouped_query_attention():
    _, _, space = probed("llama")
    q = {"self_attn.q_proj.weight:0", "self_attn.o_proj.weight:1"}
    kv = {"self_attn.k_proj.weight:0", "self_attn.v_proj.weight:0"}
    tables = {"model.rotary_emb.inv_freq:0", "model.rotary_emb.original_inv_freq:0"}
    assert moved(space, "num_attention_heads") == q
    assert moved(space, "num_key_value_heads") == kv
    assert moved(space, "head_dim") == q | kv | tables
    mlp = {"mlp.gate_proj.weight:0", "mlp.up_proj.weight:0", "mlp.down_proj.weight:1"}
    assert moved(space, "intermediate_size") == mlp
    assert moved(space, "vocab_size") == {"model.embed_tokens.weight:0", "lm_head.weight:0"}


def test_fields_that_move_nothing_are_left_out():
    _, _, space = probed("llama")
    assert not {"initializer_range", "use_cache", "num_hidden_layers"} & {f.name for f in space.fields}


def test_a_none_stands_for_what_the_model_derives():
    _, _, space = probed("gpt2", n_inner=None)
    inner = field(space, "n_inner")
    assert inner.implicit
    assert inner.stands_for == 240  # documented: four times n_embd


@pytest.mark.parametrize("family", ["qwen2", "phi3"])
def test_a_name_that_only_model_code_reads_is_found(family):
    _, _, space = probed(family)
    head = field(space, "head_dim")
    assert "head_dim" not in {path_text(path) for path in leaves(space.config)}
    assert head.implicit
    assert head.stands_for == 10


def test_flags_say_which_tensors_they_bring():
    _, _, space = probed("llama")
    assert field(space, "mlp_bias").tensors == {
        f"model.layers.0.mlp.{part}_proj.bias" for part in ("gate", "up", "down")
    }


def test_depth_field_and_the_lists_that_go_with_it():
    _, _, space = probed_config(config_with("gemma3", eos_token_id=[3, 4]))
    (depth,) = space.depths
    assert (path_text(depth.path), depth.blocks) == ("num_hidden_layers", 2)
    assert [path_text(path) for path in depth.lists] == ["layer_types"]  # not the two eos ids
    assert depth.resize(space.config, (1,)).layer_types == ["full_attention"]


def test_entries_of_lists_are_leaves():
    config = vary(config_with("llama"), {("eos_token_id",): [5, 6]})
    assert leaves(config)[("eos_token_id", 1)] == 6
    assert path_text(("text_config", "widths", 3)) == "text_config.widths[3]"


def test_widths_are_probed_on_one_block_of_each_sort():
    _, graph, space = probed("llama", num_hidden_layers=5)
    assert space.shallow.config.num_hidden_layers == 1
    assert set(space.shallow.stands_for) == {block.name for block in graph.blocks}
    assert space.shallow.shown("model.layers.4.mlp.up_proj.weight") == "model.layers.0.mlp.up_proj.weight"
    assert space.shallow.shown("model.norm.weight") == "model.norm.weight"


def test_a_config_of_another_model_is_refused_with_every_tensor():
    _, graph, space = probed("llama")
    with pytest.raises(RebuildError, match=r"does not build the traced model") as caught:
        probe(vary(space.config, {("intermediate_size",): 80}), graph)
    assert "model.layers.1.mlp.up_proj.weight: traced (88, 60), config builds (80, 60)" in str(caught.value)


def test_a_refusal_carries_the_validator_s_words():
    _, _, space = probed("llama")
    with pytest.raises(RebuildError, match=r"LlamaConfig refuses: .*not a multiple of the number"):
        vary(space.config, {("num_attention_heads",): 7})


def test_computed_buffers_have_their_values():
    config = LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=20, num_attention_heads=3)
    table = measure(vary(config, {("num_hidden_layers",): 1}), values=True).constants[
        "model.rotary_emb.inv_freq"
    ]
    theta = config.rope_parameters["rope_theta"]
    torch.testing.assert_close(table, theta ** -(torch.arange(0, 8, 2) / 8))


def test_watching_for_names_leaves_configs_as_they_were():
    with sought_names() as found:
        assert getattr(LlamaConfig(), "no_such_field", 3) == 3
    assert (LlamaConfig, "no_such_field") in found
    assert "__getattr__" not in vars(PreTrainedConfig)


def test_measured_configs_are_remembered():
    _, _, space = probed("llama")
    fresh = dataclasses.replace(space, _measured={})
    assert fresh.measure({("intermediate_size",): 40}) is fresh.measure({("intermediate_size",): 40})
    assert fresh.measure({}) == space.shallow.base


def test_whatever_model_code_raises_is_one_error(monkeypatch):
    def fail(config):
        raise AssertionError("heads")

    monkeypatch.setattr(signature, "skeleton", fail)
    with pytest.raises(RebuildError, match="the model cannot be built: AssertionError: heads"):
        signature.measure(config_with("llama"))
