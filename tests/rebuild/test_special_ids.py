"""A vocabulary that special ids part: what lies behind them is cut, config and comparison follow."""

from __future__ import annotations

import pytest
import torch
from transformers import RobertaConfig, RobertaForMaskedLM

import surgeon
from surgeon.plan import Keep, Plan
from surgeon.rebuild.symmetry import randomised


@pytest.fixture(scope="module")
def module():
    config = RobertaConfig(
        vocab_size=53, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=64, type_vocab_size=2, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return randomised(RobertaForMaskedLM(config).eval()).float()


def test_rows_behind_the_padding_are_cut_and_the_padding_keeps_its_number(module):
    graph = surgeon.trace(module)
    (axis,) = [group for group in graph.groups if group.kind == "vocab"]
    assert (axis.locked, axis.size) == (None, 51)
    kept = tuple(range(0, 51, 3))
    plan = Plan(graph.model_type, (Keep(axis.name, kept, 0),))
    small = surgeon.apply(module, plan)
    assert (small.config.vocab_size, small.config.pad_token_id) == (2 + len(kept), 1)
    rows = [0, 1, *(2 + index for index in kept)]
    own, cut = (m.roberta.embeddings.word_embeddings.weight for m in (module, small))
    assert torch.equal(cut, own[rows])
    ids = torch.tensor([[0, 1, 3, 5, 1, 18]])
    with torch.no_grad():
        whole = module(torch.tensor(rows)[ids]).logits[..., rows]
        assert torch.allclose(small(ids).logits, whole, atol=1e-5)
    assert surgeon.verify(module, small, plan).ok
