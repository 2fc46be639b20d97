"""The same weights in another stock class: identical logits, or a refusal that says why."""

from __future__ import annotations

import pytest
import torch
import transformers

from surgeon.errors import InfeasibleError
from surgeon.rebuild.rehome import NOT_CARRIED, rehome
from tests.rebuild.config_cases import TOKENS, probed


def test_a_family_with_biases_on_three_projections_moves():
    module, _, _ = probed("qwen2")
    moved = rehome(module, "llama")
    assert type(moved) is transformers.LlamaForCausalLM
    assert moved.config.attention_bias
    added = set(dict(moved.named_parameters())) - set(dict(module.named_parameters()))
    assert added == {f"model.layers.{block}.self_attn.o_proj.bias" for block in (0, 1)}
    assert not any(moved.get_parameter(name).any() for name in added)
    with torch.no_grad():
        torch.testing.assert_close(moved(TOKENS).logits, module(TOKENS).logits)


def mistral(**fields):
    sizes = {"vocab_size": 151, "hidden_size": 60, "num_hidden_layers": 2, "num_attention_heads": 6}
    config = transformers.MistralConfig(**sizes, num_key_value_heads=2, intermediate_size=88, **fields)
    torch.manual_seed(0)
    return transformers.MistralForCausalLM._from_config(config, attn_implementation="eager").eval()


def test_a_window_that_no_short_text_shows_is_found():
    assert rehome(mistral(sliding_window=None), "llama").config.model_type == "llama"
    with pytest.raises(InfeasibleError, match="cannot say sliding_window = 4096, which matters"):
        rehome(mistral(sliding_window=4096), "llama")


def test_a_model_that_computes_something_else_is_refused(monkeypatch):
    module, _, _ = probed("qwen2", rms_norm_eps=0.5)
    monkeypatch.setattr("surgeon.rebuild.rehome.NOT_CARRIED", NOT_CARRIED | {"rms_norm_eps"})
    with pytest.raises(InfeasibleError, match="it computes something else: logits differ by"):
        rehome(module, "llama")


def test_a_family_of_other_shapes_is_refused():
    module, _, _ = probed("gpt2")
    with pytest.raises(InfeasibleError, match=r"no config of type 'llama' takes over .* 'gpt2'"):
        rehome(module, "llama")


def test_a_family_that_does_not_exist():
    module, _, _ = probed("llama")
    with pytest.raises(InfeasibleError, match="no language model of type 'lama' to move to"):
        rehome(module, "lama")
