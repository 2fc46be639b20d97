"""`evaluate` on checkpoints: the shipped model, against itself and against a smaller one."""

from __future__ import annotations

import pytest
import torch

import surgeon
from surgeon.errors import InputError


def named(values):
    return {value.name: value for value in values}


def test_the_shipped_model_is_as_good_as_its_card_says(tiny_model, tiny_texts):
    text = tiny_texts / "tiny-1m-heldout.txt"
    found = named(surgeon.evaluate(tiny_model, text=text, window=128, metrics=["perplexity", "bytes"]))
    assert found["perplexity"].value == pytest.approx(22.6, abs=0.05)
    assert found["perplexity"].protocol == "window 128, stride 128, no start token"
    assert found["bytes"].value == 2 * 886368


def test_a_model_against_itself_and_against_another(saved_llama):
    ids = torch.randint(3, 53, (90,), generator=torch.Generator().manual_seed(0))
    model, other = saved_llama(), saved_llama("other", seed=1)
    same = named(surgeon.evaluate(model, against=model, text=ids, window=16))
    assert same["kl"].value == pytest.approx(0, abs=1e-6)
    assert same["top1_agreement"].value == 1
    apart = named(surgeon.evaluate(model, against=other, text=ids, window=16, metrics=["kl", "js"]))
    assert apart["kl"].value > 0
    assert 0 < apart["js"].value < 0.7
    assert set(apart) == {"kl", "js"}


def test_windows_stay_within_the_positions_that_the_model_has(saved_llama):
    ids = torch.arange(3, 50).repeat(4)
    found = named(surgeon.evaluate(saved_llama(), text=ids, metrics=["perplexity"]))
    assert found["perplexity"].protocol.startswith("window 64,")


def test_a_start_token_that_the_config_does_not_name(saved_llama):
    model = saved_llama(bos_token_id=None)
    with pytest.raises(InputError, match="names no start token"):
        surgeon.evaluate(model, text=torch.arange(3, 50), bos=True)


def test_text_and_ids_at_once(tiny_model, tiny_texts):
    text = tiny_texts / "tiny-1m-heldout.txt"
    with pytest.raises(InputError, match="both text and token ids"):
        surgeon.evaluate(tiny_model, text=[text, torch.arange(5)])


def test_load_gives_the_module_back(saved_llama):
    module = surgeon.load(saved_llama(), dtype=torch.float64)
    assert module.dtype == torch.float64
    assert not module.training
