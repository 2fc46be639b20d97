"""Every shipped recipe for depth, from recipe to checkpoint, on small models of several sorts."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from tests.api.recipes import DEPTH, checkpoints, run

BASE = {
    "vocab_size": 1024,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "dense": lambda: hf.LlamaConfig(**BASE, head_dim=6),
    "hybrid": lambda: hf.Qwen3NextConfig(
        **{**BASE, "num_hidden_layers": 4},
        head_dim=6,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        layer_types=["linear_attention", "full_attention"] * 2,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=6,
        linear_value_head_dim=6,
    ),
    "moe": lambda: hf.Qwen3MoeConfig(
        **BASE, head_dim=6, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "encoder": lambda: hf.BertConfig(
        **{k: v for k, v in BASE.items() if k != "num_key_value_heads"}, architectures=["BertForMaskedLM"]
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model):
    return checkpoints(CONFIGS, tmp_path_factory.mktemp("depth"), tiny_model)


def quick(recipe):
    return ["steps.0.training.epochs=1"] if recipe == "streamline" else []


def assert_generates(folder, remote):
    small = hf.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote)
    ids = torch.randint(1024, (2, 9), generator=torch.Generator().manual_seed(1))
    options = {"max_new_tokens": 7, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        cached = small.generate(ids, use_cache=True, **options)
        plain = small.generate(ids, use_cache=False, **options)
    assert torch.equal(cached, plain)
    return sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("recipe", DEPTH)
def test_recipe_runs(recipe, folders, tmp_path):
    report = run(recipe, folders("dense"), tmp_path / "small", *quick(recipe))
    count = assert_generates(tmp_path / "small", recipe == "attention_drop")
    assert count == report.after.parameters
    assert report.after.parameters < report.before.parameters or recipe == "laco"


@pytest.mark.parametrize("name", ["moe", "encoder"])
@pytest.mark.parametrize("recipe", ["sleb", "streamline"])
def test_other_sorts_of_models(recipe, name, folders, tmp_path):
    report = run(recipe, folders(name), tmp_path / "small", *quick(recipe))
    assert report.after.parameters < report.before.parameters
    if name == "moe":
        assert_generates(tmp_path / "small", False)


def test_a_hybrid_keeps_its_pattern(folders, tmp_path):
    report = run("tail", folders("hybrid"), tmp_path / "small")
    assert report.after.parameters < report.before.parameters
    assert_generates(tmp_path / "small", False)
