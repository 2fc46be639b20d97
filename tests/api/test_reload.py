"""Reloading by the auto class of the task, and generation held against the original's."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from surgeon.api.generation import check_generation
from surgeon.api.reload import check_reload
from surgeon.errors import VerifyError
from surgeon.evaluate import measure
from surgeon.io import write_checkpoint

TOKENS = torch.tensor([[5, 7, 11, 2, 40, 3, 9]])


def bert(kind, **more):
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        vocab_size=50,
        initializer_range=0.5,
        **more,
    )
    return kind(config).eval()


def t5():
    torch.manual_seed(0)
    config = T5Config(d_model=16, d_kv=8, d_ff=12, num_layers=2, num_heads=2, vocab_size=50)
    return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize(
    ("make", "loader", "said"),
    [(lambda: bert(BertForMaskedLM), "MaskedLM", 2), (t5, "Seq2SeqLM", 3)],
)
def test_the_auto_class_of_the_task_loads_it(tmp_path, make, loader, said):
    module = make()
    write_checkpoint(tmp_path, module)
    checks = check_reload(tmp_path, module, 1e-5)
    assert checks[0].startswith(f"stock AutoModelFor{loader} loads it; logits differ by 0.0e+00")
    assert len(checks) == said  # what does not generate is not asked to


def test_generation_that_goes_wrong_with_the_original_too_is_said():
    # Without a causal mask every token sees later ones, which a cache cannot show it.
    encoder = bert(BertLMHeadModel, is_decoder=False)
    said = check_generation(encoder, TOKENS, encoder)
    assert said.startswith("generation with the cache goes wrong, and so it does with the original: ")
    with pytest.raises(VerifyError, match="cached generation differs from a pass without a cache by"):
        check_generation(encoder, TOKENS, bert(BertLMHeadModel, is_decoder=True))


def noisy(share):
    """A decoder whose logits are off by this share of the largest wherever a cache is used."""
    decoder = bert(BertLMHeadModel, is_decoder=True)

    def disturb(_, __, given, output):
        if given.get("use_cache") is not False:
            output.logits[..., 0] += share * output.logits.abs().max()
        return output

    decoder.register_forward_hook(disturb, with_kwargs=True)
    return decoder


def test_generation_may_be_as_noisy_as_the_original_s():
    with pytest.raises(VerifyError, match="cached generation differs"):
        check_generation(noisy(3e-3), TOKENS)
    with pytest.raises(VerifyError, match="cached generation differs"):
        check_generation(noisy(3e-2), TOKENS, noisy(1e-3))
    said = check_generation(noisy(3e-3), TOKENS, noisy(1e-3))
    assert "logits differ by 3.0e-03 from one pass without, the original's by 1.0e-03" in said
    assert "tokens generated" in check_generation(noisy(1e-3), TOKENS)


def test_generation_that_fails_says_how(monkeypatch):
    decoder = bert(BertLMHeadModel, is_decoder=True)

    def refuse(*_, **__):
        raise ValueError("no cache")

    monkeypatch.setattr(decoder, "generate", refuse)
    with pytest.raises(VerifyError, match="generation with the cache fails: ValueError: no cache"):
        check_generation(decoder, TOKENS)


def test_metrics_that_do_not_apply_are_left_out():
    names = {value.name for value in measure(t5(), None)}
    assert "parameters" in names
    assert not {"kv_cache_bytes_per_token", "decode_tokens_per_second", "prefill_tokens_per_second"} & names
