"""A module whose weights are read at each use computes what the module computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from surgeon.rebuild import ModuleSource, probe_tokens, skeleton, unread
from surgeon.rebuild.lazy import Value
from surgeon.rebuild.unread import Unread, unread_module


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(unread, "PIECE", 100)


def moe():
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        moe_intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        num_experts=4,
        num_experts_per_tok=2,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    return Qwen3MoeForCausalLM(config).eval()


def test_functions_in_pieces():
    weight, bias, x = torch.randn(13, 5), torch.randn(13), torch.randn(2, 3, 5)
    described = Unread(Value(weight))
    assert torch.allclose(F.linear(x, described, bias), F.linear(x, weight, bias))
    assert torch.allclose(F.linear(x, weight=described, bias=bias), F.linear(x, weight, bias))
    ids = torch.tensor([[3, 1], [3, 12]])
    assert torch.equal(F.embedding(input=ids, weight=described), F.embedding(ids, weight))
    assert torch.equal(F.embedding(ids, described), F.embedding(ids, weight))
    assert torch.equal(x @ described.t(), x @ weight.t())
    assert torch.equal(described[2].double() + 1, weight[2].double() + 1)
    assert torch.equal(described[torch.tensor(4)], weight[4])
    assert torch.equal(described[torch.tensor([4, 1])], weight[[4, 1]])
    assert "Unread([13, 5]" in repr(described)


@pytest.mark.parametrize(
    "told",
    [
        ("cpu",),
        (torch.device("cpu"),),
        ("cpu", torch.float64),
        (torch.float64, True),
        (torch.zeros(1, dtype=torch.float64),),
    ],
    ids=str,
)
def test_casts_are_described_however_they_are_told(told):
    weight = torch.randn(3, 4)
    described = Unread(Value(weight)).to(*told)
    assert isinstance(described, Unread)
    assert described.dtype == weight.to(*told).dtype
    assert torch.equal(described + 1, weight.to(*told) + 1)


@pytest.mark.parametrize("tied", [False, True])
def test_forward_and_generate(small_llama, tied):
    check(small_llama(tie_word_embeddings=tied))


def test_experts():
    check(moe())


def check(module):
    twin = unread_module(skeleton(module.config), ModuleSource(module))
    assert all(isinstance(tensor, Unread) for tensor in twin.parameters())
    assert len(list(twin.parameters())) == len(list(module.parameters()))
    tokens = probe_tokens(module)
    with torch.no_grad():
        want, got = module(input_ids=tokens).logits, twin(input_ids=tokens).logits
        assert torch.allclose(got, want, atol=1e-5)
        options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(twin.generate(tokens[:1], **options), module.generate(tokens[:1], **options))
