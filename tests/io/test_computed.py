"""What stock transformers computes when it loads is no gap in a checkpoint; what it would draw is one."""

from __future__ import annotations

import torch
from transformers import MarianConfig, MarianMTModel

import surgeon
from surgeon.io.computed import computed_tensors

POSITIONS = "model.encoder.embed_positions.weight"


def translator():
    torch.manual_seed(0)
    config = MarianConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        vocab_size=40,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=2,
        forced_eos_token_id=1,
        max_position_embeddings=64,
    )
    return MarianMTModel(config).eval()


def test_positions_that_are_not_stored_are_computed():
    module = translator()
    with torch.device("meta"):
        blank = MarianMTModel(module.config)
    found = computed_tensors(blank, [POSITIONS, "model.encoder.layers.0.fc1.weight"])
    assert set(found) == {POSITIONS}
    assert torch.equal(found[POSITIONS], module.get_parameter(POSITIONS))


def test_what_is_drawn_at_random_is_missing(monkeypatch):
    module = translator()
    monkeypatch.setattr(MarianMTModel, "_keys_to_ignore_on_load_missing", ["fc1.weight"])
    assert computed_tensors(module, ["model.encoder.layers.0.fc1.weight"]) == {}


def test_a_checkpoint_without_them_is_cut(tmp_path):
    translator().save_pretrained(tmp_path / "model")
    step = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.75}, "criterion": "magnitude"}
    report = surgeon.run({"surgeon": 1, "steps": [step]}, model=tmp_path / "model", out=tmp_path / "small")
    assert report.measured["comparison"]["ok"]
