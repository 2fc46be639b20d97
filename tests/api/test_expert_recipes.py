"""Every shipped recipe for mixtures, run as it is on a small one, from recipe to checkpoint."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import surgeon
from tests.conftest import ROOT

RECIPES = sorted(path for kind in ("experts_*", "moe_*") for path in (ROOT / "recipes").glob(f"{kind}.yaml"))
FEWER = ("calibration.samples=6", "calibration.seq_len=24")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory, tiny_model):
    """Folder of a random mixture with the shipped model's tokenizer; experts lie one by one on disk."""
    folder = tmp_path_factory.mktemp("mixture")
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
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
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    for file in tiny_model.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def names(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs(recipe, mixture, tmp_path):
    report = surgeon.run(recipe, model=mixture, out=tmp_path / "small", overrides=FEWER)
    assert report.after.parameters < report.before.parameters
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert sum(p.numel() for p in small.parameters()) == report.after.parameters
    stock = tmp_path / "stock"
    small.save_pretrained(stock)
    assert names(stock) == names(tmp_path / "small")
    size, before = ((f / "model.safetensors").stat().st_size for f in (tmp_path / "small", mixture))
    assert size / before == pytest.approx(report.after.parameters / report.before.parameters, rel=0.05)


def test_there_are_recipes():
    assert len(RECIPES) >= 6
