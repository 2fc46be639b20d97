"""A skeleton filled from a model computes what the model computes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, OPTConfig

from surgeon.errors import RebuildError
from surgeon.rebuild.skeleton import architecture, load_into, skeleton

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 53}
CONFIGS = {
    "tied": LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=True),
    "untied": LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2),
    "conv1d": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=53, n_positions=32),
    "scaled": Gemma3TextConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, head_dim=8),
    "learned": OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32),
}


def stored(module):
    names = module.state_dict()
    yield from module.named_parameters(remove_duplicate=False)
    yield from ((n, b) for n, b in module.named_buffers(remove_duplicate=False) if n in names)


@pytest.fixture(autouse=True)
def quiet():
    torch.manual_seed(0)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("family", CONFIGS)
def test_filled_skeleton_equals_stock_model(family, device):
    stock = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager").eval()
    ids = torch.randint(0, 53, (2, 7))
    built = load_into(skeleton(CONFIGS[family], device=device), stored(stock))
    assert torch.equal(built(input_ids=ids).logits, stock(input_ids=ids).logits)
    assert len(list(built.parameters())) == len(list(stock.parameters()))
    assert type(built) is type(stock)


def test_dtype_and_config_stay_apart():
    config = CONFIGS["untied"]
    before = config.to_dict()
    assert skeleton(config, dtype=torch.float64).dtype == torch.float64
    assert config.to_dict() == before


def test_architecture_is_the_one_named():
    assert architecture(LlamaConfig(architectures=["LlamaModel"])).__name__ == "LlamaModel"
    assert architecture(LlamaConfig()).__name__ == "LlamaForCausalLM"


def test_unknown_architecture_is_refused():
    class Odd(LlamaConfig):
        model_type = "odd"

    with pytest.raises(RebuildError, match="no model class for a config of type 'odd'"):
        architecture(Odd(architectures=["OddForNothing"]))


def test_config_that_its_class_refuses():
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=53)
    config.n_head = 5
    with pytest.raises(RebuildError, match="refuses the config"):
        skeleton(config)


def test_all_mismatches_are_listed():
    stock = AutoModelForCausalLM.from_config(CONFIGS["untied"])
    tensors = dict(stored(stock))
    tensors["model.norm.weight"] = torch.zeros(3)
    tensors["nowhere"] = torch.zeros(1)
    del tensors["lm_head.weight"]
    with pytest.raises(RebuildError, match="3 tensors do not fit") as caught:
        load_into(skeleton(CONFIGS["untied"]), tensors.items())
    message = str(caught.value)
    assert "nowhere: the new module has no such tensor" in message
    assert "model.norm.weight: [3] does not fit [32]" in message
    assert "lm_head.weight: not filled" in message


def test_buffers_that_nobody_can_compute():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))
            self.register_buffer("table", torch.arange(2.0), persistent=False)

    with torch.device("meta"):
        bare = Bare()
    with pytest.raises(RebuildError, match="does not say how to compute them: table"):
        load_into(bare, [("weight", torch.ones(2))])
