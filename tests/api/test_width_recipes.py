"""Every shipped recipe on widths, run as it is on small models, from recipe to checkpoint."""

from __future__ import annotations

import shutil

import pytest
import torch
import transformers as hf

import surgeon
from surgeon.errors import InfeasibleError
from tests.conftest import ROOT

NAMES = ("demo", "flap", "llm_pruner", "magnitude", "refit", "refit_per_layer", "taylor_refit", "wanda_sp")
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
    "gpt2": lambda: hf.GPT2Config(**COMMON, n_embd=24, n_layer=3, n_head=4, n_inner=40, n_positions=128),
    "moe": lambda: hf.Qwen3MoeConfig(
        **COMMON, **HEADS, num_hidden_layers=2, moe_intermediate_size=48, num_experts=4, num_experts_per_tok=2
    ),
    "qwen3": lambda: hf.Qwen3Config(**COMMON, **HEADS, num_hidden_layers=3, intermediate_size=40),
    "post_norm": lambda: hf.Olmo2Config(**COMMON, **HEADS, num_hidden_layers=3, intermediate_size=40),
}
CASES = [
    *(("llama", name) for name in NAMES),
    *(("gpt2", name) for name in ("flap", "refit", "taylor_refit", "wanda_sp")),
    *(("moe", name) for name in ("wanda_sp", "refit", "taylor_refit")),
    ("post_norm", "refit"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model):
    """Checkpoints with the shipped model's tokenizer, made when first asked for."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            hf.AutoModelForCausalLM.from_config(CONFIGS[name]()).save_pretrained(made[name])
            for file in tiny_model.glob("tokenizer*"):
                shutil.copy(file, made[name])
        return made[name]

    return folder


def run(model, recipe, out):
    path = ROOT / "recipes" / f"{recipe}.yaml"
    fewer = ("calibration.samples=4", "calibration.seq_len=24")
    overrides = fewer if "calibration:" in path.read_text(encoding="utf-8") else ()
    return surgeon.run(path, model=model, out=out, overrides=overrides)


@pytest.mark.parametrize(("name", "recipe"), CASES, ids=lambda word: word)
def test_recipe_runs(name, recipe, folders, tmp_path):
    report = run(folders(name), recipe, tmp_path / "small")
    remote = recipe == "refit_per_layer"
    small = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "small", trust_remote_code=remote)
    assert sum(p.numel() for p in small.parameters()) == report.after.parameters
    assert report.steps[0].notes[0].startswith("asked for ")
    with torch.no_grad():
        assert small(input_ids=torch.arange(2, 32).view(2, 15)).logits.isfinite().all()
    if name == "post_norm":
        assert any("read by a norm before the stream" in note for note in report.steps[0].notes)


def test_flap_without_a_place_for_biases_says_so_first(folders, tmp_path):
    with pytest.raises(InfeasibleError, match=r"no flag that gives .*down_proj.bias") as refused:
        run(folders("qwen3"), "flap", tmp_path / "small")
    assert "refit needs no bias" in str(refused.value.hint)
    assert not (tmp_path / "small").exists()


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
