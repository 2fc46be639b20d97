"""Every shipped recipe for mixtures, run as it is on a small one, from recipe to checkpoint."""

from __future__ import annotations

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from tests.api.recipes import EXPERTS, checkpoints, run


def config():
    return Qwen3MoeConfig(
        vocab_size=1024,
        hidden_size=24,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        moe_intermediate_size=16,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="module")
def mixture(tmp_path_factory, tiny_model):
    """Folder of a random mixture with the shipped model's tokenizer; experts lie one by one on disk."""
    return checkpoints({"mixture": config}, tmp_path_factory.mktemp("experts"), tiny_model)("mixture")


def names(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("recipe", EXPERTS)
def test_recipe_runs(recipe, mixture, tmp_path):
    report = run(recipe, mixture, tmp_path / "small")
    assert report.after.parameters < report.before.parameters
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert sum(p.numel() for p in small.parameters()) == report.after.parameters
    stock = tmp_path / "stock"
    small.save_pretrained(stock)
    assert names(stock) == names(tmp_path / "small")
    size, before = ((f / "model.safetensors").stat().st_size for f in (tmp_path / "small", mixture))
    assert size / before == pytest.approx(report.after.parameters / report.before.parameters, rel=0.05)
