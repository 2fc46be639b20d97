"""Every shipped recipe on widths, run as it is on small models, from recipe to checkpoint."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

import surgeon
from tests.api.recipes import DEEP, DEPTH, EXPERTS, RECIPES, WIDTH, called, checkpoints, run

COMMON = {
    "vocab_size": 1024,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "hidden_size": 24}
CONFIGS = {
    "llama": lambda: hf.LlamaConfig(**COMMON, **HEADS, num_hidden_layers=3, intermediate_size=40),
    "deep": lambda: hf.LlamaConfig(**COMMON, **HEADS, num_hidden_layers=7, intermediate_size=40),
    "gpt2": lambda: hf.GPT2Config(**COMMON, n_embd=24, n_layer=3, n_head=4, n_inner=40, n_positions=128),
    "moe": lambda: hf.Qwen3MoeConfig(
        **COMMON, **HEADS, num_hidden_layers=2, moe_intermediate_size=48, num_experts=4, num_experts_per_tok=2
    ),
    "qwen3": lambda: hf.Qwen3Config(**COMMON, **HEADS, num_hidden_layers=3, intermediate_size=40),
    "post_norm": lambda: hf.Olmo2Config(**COMMON, **HEADS, num_hidden_layers=3, intermediate_size=40),
}
CASES = [
    *(("llama", name) for name in WIDTH),
    *(("deep", name) for name in DEEP),
    *(("gpt2", name) for name in ("flap", "refit", "taylor_refit", "wanda_sp")),
    *(("moe", name) for name in ("wanda_sp", "refit", "taylor_refit")),
    ("post_norm", "refit"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model):
    return checkpoints(CONFIGS, tmp_path_factory.mktemp("width"), tiny_model)


@pytest.mark.parametrize(("name", "recipe"), CASES, ids=lambda word: word)
def test_recipe_runs(name, recipe, folders, tmp_path):
    report = run(recipe, folders(name), tmp_path / "small")
    remote = recipe in ("refit_per_layer", *DEEP)
    small = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "small", trust_remote_code=remote)
    assert sum(p.numel() for p in small.parameters()) == report.after.parameters
    assert report.steps[0].notes[0].startswith("asked for ")
    with torch.no_grad():
        assert small(input_ids=torch.arange(2, 32).view(2, 15)).logits.isfinite().all()
    if name == "post_norm":
        assert any("read by a norm before the stream" in note for note in report.steps[0].notes)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_flap_without_a_place_for_biases_says_so_first(verb, folders, tmp_path):
    out = ("--out", tmp_path / "small") if verb == "run" else ()
    done = called(verb, "flap", folders("qwen3"), *out)
    assert done.exit_code == 1
    assert not done.stdout
    assert "the model has no 'model.layers.0.mlp.down_proj.bias' (and 2 more)" in done.stderr
    assert "repair: refit, which needs no bias; or rehome" in done.stderr
    assert "measure" not in done.stderr
    assert not (tmp_path / "small").exists()


def test_every_shipped_recipe_is_run_somewhere():
    shipped = {path.stem for path in RECIPES.glob("*.yaml")}
    assert shipped == {*DEPTH, *WIDTH, *DEEP, *EXPERTS}


def test_a_layer_that_loses_all_is_written_without_its_sublayer(tmp_path):
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(CONFIGS["llama"]()).eval()
    with torch.no_grad():
        for weight in model.model.layers[1].mlp.parameters():
            weight *= 1e-3
    step = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.6}, "criterion": "magnitude"}
    step |= {"allocation": "global", "least": 0}
    recipe = {"surgeon": 1, "steps": [step], "export": {"layout": "per_layer"}}
    report = surgeon.run(recipe, model=model, out=tmp_path / "small")
    assert [choice.kept for choice in report.steps[0].choices][1] == 0
    small = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "small", trust_remote_code=True)
    assert sum(p.numel() for p in small.parameters()) == report.after.parameters
    assert not any(name.startswith("model.layers.1.mlp.") for name, _ in small.named_parameters())
