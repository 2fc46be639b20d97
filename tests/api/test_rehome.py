"""``rehome`` in a recipe: a repair by bias on a family without biases, from the recipe to a replayed plan."""

from __future__ import annotations

import pytest
import torch
import transformers

import surgeon
from surgeon.api.replay import replay
from surgeon.api.verify import verify_folder
from surgeon.errors import InfeasibleError, PlanError

STEP = {
    "op": "remove",
    "select": {"kind": "ffn"},
    "keep": {"fraction": 0.5},
    "criterion": "magnitude",
    "repair": "bias",
}


@pytest.fixture
def biased(tmp_path):
    """A checkpoint of a family whose config has no flag for the bias of an MLP."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 53, "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2}
    config = transformers.Qwen2Config(**sizes, num_attention_heads=6, num_key_value_heads=3)
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def ids():
    return [torch.randint(3, 53, (4, 16), generator=torch.Generator().manual_seed(0))]


def recipe(**fields):
    calibration = {"texts": "none.txt", "samples": 4, "seq_len": 16}
    return {"surgeon": 1, "steps": [STEP], "calibration": calibration, **fields}


def test_without_it_the_way_out_is_named(biased):
    with pytest.raises(InfeasibleError, match="no flag in the config of a 'qwen2' switches it on") as refused:
        surgeon.plan(biased, recipe(), texts=ids())
    assert "rehome" in str(refused.value.hint)


def test_with_it_the_repair_is_made_published_and_replayed(biased, tmp_path):
    out = tmp_path / "small"
    report = surgeon.run(recipe(rehome="llama"), model=biased, out=out, texts=ids())
    assert ("model_type", "qwen2", "llama") in {(row.field, row.old, row.new) for row in report.ledger}
    small = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert type(small) is transformers.LlamaForCausalLM
    assert small.model.layers[0].mlp.down_proj.bias.abs().max() > 0
    assert verify_folder(out, biased)[0].ok
    replay(out / "plan.json", model=biased, out=tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert all(torch.equal(p, q) for p, q in zip(small.parameters(), again.parameters(), strict=True))


def test_a_plan_for_a_family_that_this_model_cannot_move_to(biased, tmp_path, saved_llama):
    from surgeon.api.plan import plan_report

    step = {**STEP, "repair": "none"}
    plan_report({"surgeon": 1, "steps": [step]}, model=biased, out=tmp_path / "plan.json")
    with pytest.raises(PlanError, match="was made for a model of type 'qwen2'"):
        replay(tmp_path / "plan.json", model=saved_llama("other", attention_bias=True), out=tmp_path / "x")
