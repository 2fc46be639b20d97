from __future__ import annotations

import pytest
import torch
from transformers import MistralConfig

from surgeon.errors import InfeasibleError
from surgeon.rebuild.bias_slots import bias_slots, with_bias_slots

IDS = torch.tensor([[3, 4, 5, 6, 7]])


def test_flags_are_found_and_the_model_computes_the_same(small_llama):
    model = small_llama(tie_word_embeddings=True)
    wanted = [f"model.layers.{i}.mlp.down_proj.bias" for i in range(3)]
    slots = bias_slots(model.config, wanted)
    assert slots.fields == ("mlp_bias",)
    assert len(slots.added) == 9
    larger = with_bias_slots(model, slots)
    assert larger.config.mlp_bias
    assert not model.config.mlp_bias
    assert all(not larger.get_parameter(name).any() for name in slots.added)
    assert torch.equal(larger(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert larger.lm_head.weight is larger.model.embed_tokens.weight
    both = bias_slots(model.config, [*wanted, "model.layers.1.self_attn.o_proj.bias"])
    assert set(both.fields) == {"mlp_bias", "attention_bias"}


def test_nothing_to_add(small_llama):
    model = small_llama(mlp_bias=True)
    slots = bias_slots(model.config, ["model.layers.0.mlp.down_proj.bias"])
    assert slots.added == ()
    assert with_bias_slots(model, slots) is model


def test_a_family_without_such_a_flag():
    config = MistralConfig(vocab_size=53, hidden_size=32, intermediate_size=24, num_hidden_layers=2)
    config.num_attention_heads, config.num_key_value_heads = 4, 2
    with pytest.raises(
        InfeasibleError,
        match=r"no 'model.layers.0.mlp.*' \(and 1 more\), and no flag in the config of a 'mistral'",
    ):
        bias_slots(config, [f"model.layers.{i}.mlp.down_proj.bias" for i in range(2)])
