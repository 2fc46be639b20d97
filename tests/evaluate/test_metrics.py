"""Metrics against closed forms: models whose every prediction is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from surgeon.errors import InputError, SurgeonError
from surgeon.evaluate import Windowing, measure, metrics

A = torch.tensor([0.5, 0.25, 0.125, 0.125])
B = torch.tensor([0.125, 0.125, 0.25, 0.5])
IDS = torch.tensor([0, 1, 2, 3, 0, 0, 1, 2, 0])


class Unigram(nn.Module):
    """Predicts the same distribution everywhere."""

    def __init__(self, probabilities: torch.Tensor) -> None:
        super().__init__()
        self.log = nn.Parameter(probabilities.log())

    def forward(self, input_ids, use_cache=False):
        return SimpleNamespace(logits=self.log.expand(*input_ids.shape, -1) + 7.0)


def value(name: str, **options) -> float:
    (result,) = measure(Unigram(A), IDS, names=[name], **options)
    return result.value


def test_perplexity_of_a_unigram_model():
    expected = math.exp(-A[IDS[1:]].double().log().mean().item())
    assert value("perplexity", protocol=Windowing(4, 2)) == pytest.approx(expected, rel=1e-6)
    with_start = math.exp(-A[IDS].double().log().mean().item())
    assert value("perplexity", protocol=Windowing(4, bos=0)) == pytest.approx(with_start, rel=1e-6)


def test_divergences_of_two_unigram_models():
    other = Unigram(B)
    kl = (B * (B / A).log()).sum().item()
    middle = (A + B) / 2
    js = 0.5 * ((A * (A / middle).log()).sum() + (B * (B / middle).log()).sum()).item()
    assert value("kl", other=other) == pytest.approx(kl, rel=1e-5)
    assert value("js", other=other) == pytest.approx(js, rel=1e-5)
    assert value("top1_agreement", other=other) == 0.0


def test_a_model_does_not_differ_from_itself():
    assert value("kl", other=Unigram(A)) == pytest.approx(0, abs=1e-7)
    assert value("js", other=Unigram(A)) == pytest.approx(0, abs=1e-7)
    assert value("top1_agreement", other=Unigram(A)) == 1.0


def test_the_protocol_travels_with_the_result():
    (result,) = measure(Unigram(A), IDS, names=["perplexity"], protocol=Windowing(4, 2))
    assert result.protocol == "window 4, stride 2, no start token"


def test_a_hopeless_model_has_infinite_perplexity():
    hopeless = Unigram(torch.tensor([0.25] * 4))
    with torch.no_grad():
        hopeless.log[0] = 1e4
    (result,) = measure(hopeless, torch.tensor([0, 1, 1, 1]), names=["perplexity"])
    assert result.value == math.inf


def test_sizes_of_a_small_model(small_llama):
    model = small_llama(tie_word_embeddings=True).bfloat16()
    config = model.config
    found = {r.name: r.value for r in measure(model, None)}
    distinct = {p.data_ptr(): p.numel() for p in model.parameters()}
    assert found["parameters"] == sum(distinct.values())
    assert found["bytes"] == 2 * found["parameters"]
    kv = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert found["kv_cache_bytes_per_token"] == kv
    assert found["prefill_tokens_per_second"] > 0
    assert found["decode_tokens_per_second"] > 0
    assert "perplexity" not in found


def test_perplexity_equals_the_loss_that_the_model_itself_reports(small_llama):
    model = small_llama()
    ids = torch.randint(3, 53, (31,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = model(input_ids=ids[None], labels=ids[None]).loss.item()
    (result,) = measure(model, ids, names=["perplexity"], protocol=Windowing(31))
    assert result.value == pytest.approx(math.exp(loss), rel=1e-5)


def test_progress_counts_tokens():
    seen: list[int] = []
    measure(Unigram(A), IDS, names=["perplexity"], protocol=Windowing(4), progress=seen.append)
    assert seen == [4, 4]


@pytest.mark.parametrize(
    ("ids", "name", "message"),
    [(None, "perplexity", "'perplexity' needs a text"), (IDS, "kl", "'kl' needs another model")],
)
def test_a_metric_without_what_it_needs(ids, name, message):
    with pytest.raises(InputError, match=message):
        measure(Unigram(A), ids, names=[name])


def test_models_of_different_vocabularies():
    with pytest.raises(InputError, match="predict 4 and 3 tokens"):
        measure(Unigram(A), IDS, other=Unigram(A[:3]), names=["kl"])


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(SurgeonError, match="perplexity"):
        metrics.get("perplexty")
