"""Plain execution asks for plain ops while it lasts, in every config of a module, and then forgets."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

from surgeon.rebuild.execution import plain_execution


@pytest.fixture
def experts():
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=53,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=6,
        attn_implementation="sdpa",
    )
    return MixtralForCausalLM(config).eval()


def test_configs_are_plain_inside_and_as_before_outside(experts):
    before = copy.deepcopy(vars(experts.config))
    with plain_execution(experts):
        assert experts.config._attn_implementation == "eager"
        assert experts.config._experts_implementation == "batched_mm"
        assert experts.config.use_cache is False
    assert vars(experts.config) == before


def test_configs_are_restored_when_the_run_raises(experts):
    before = copy.deepcopy(vars(experts.config))
    with pytest.raises(ZeroDivisionError), plain_execution(experts):
        _ = 1 / 0
    assert vars(experts.config) == before


def test_the_model_computes_the_same(experts):
    ids = torch.arange(7)[None]
    with torch.no_grad():
        want = experts(ids).logits
        with plain_execution(experts):
            output = experts(ids)
    assert output.past_key_values is None
    assert torch.allclose(output.logits, want, atol=1e-5)


def test_a_module_without_config_is_fine():
    with plain_execution(nn.Linear(2, 2)):
        pass
