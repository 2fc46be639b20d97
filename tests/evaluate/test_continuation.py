from __future__ import annotations

import copy

import pytest
import torch

from surgeon.errors import InputError
from surgeon.evaluate import measure
from surgeon.evaluate.continuation import agreements, greedy
from surgeon.evaluate.first_divergent_token import FirstDivergentToken
from surgeon.evaluate.share_of_divergent_tokens import ShareOfDivergentTokens

NAMES = ("first_divergent_token", "share_of_divergent_tokens")


def test_first_and_share_of_divergent_tokens():
    agree = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    assert FirstDivergentToken().score(agree) == pytest.approx((2 + 0 + 4) / 3)
    assert ShareOfDivergentTokens().score(agree) == pytest.approx(2 / 12)


def test_greedy_is_what_generate_writes(small_llama):
    model = small_llama(eos_token_id=None)
    prompts = torch.arange(12).view(2, 6) + 3
    with torch.no_grad():
        want = model.generate(prompts, max_new_tokens=7, do_sample=False, use_cache=False)
        got = greedy(model, prompts, 7)
    assert torch.equal(got, want)


def test_a_model_goes_all_the_way_with_itself_and_not_with_another(small_llama):
    one, other = small_llama(), small_llama(seed=1)
    ids = torch.randint(53, (300,), generator=torch.Generator().manual_seed(0))
    first, share = measure(one, ids, other=copy.deepcopy(one), names=NAMES)
    assert (first.value, share.value) == (32, 0)
    assert first.protocol == "8 prompts of 32 tokens, 32 continued"
    first, share = measure(one, ids, other=other, names=NAMES)
    assert first.value < 32
    assert share.value > 0
    with torch.no_grad():
        prompts = torch.stack([ids[start : start + 32] for start in range(0, 296, 37)])
        agree = agreements(one, greedy(other, prompts, 32), 32)
    assert share.value == pytest.approx(1 - float(agree.double().mean()))


def test_another_model_is_needed(small_llama):
    with pytest.raises(InputError, match="needs another model to compare with"):
        measure(small_llama(), torch.arange(40), names=("first_divergent_token",))
