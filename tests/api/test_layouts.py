"""Layouts from a recipe to a folder: planned under the right limits, proven, published, replayed."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import surgeon
from surgeon.api.plan import plan_report
from surgeon.api.replay import replay
from surgeon.api.verify import verify_folder

STEP = {
    "op": "remove",
    "select": {"kind": ["ffn", "kv_group"]},
    "keep": {"fraction": 0.6},
    "criterion": "magnitude",
    "allocation": "global",
}


def recipe(**export):
    return {"surgeon": 1, "steps": [STEP], "export": export}


def widths(plan):
    return {len(indices) for axis, indices in plan.kept().items() if axis.endswith("ffn")}


@pytest.fixture
def scaled_llama(small_llama, tmp_path):
    """A checkpoint whose blocks differ in scale, so that a global allocation treats them differently."""
    model = small_llama()
    with torch.no_grad():
        for place, layer in enumerate(model.model.layers):
            for parameter in layer.parameters():
                parameter.mul_(1 + place / 10)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("layout", ["padded", "per_layer"])
def test_from_a_recipe_to_a_folder(layout, scaled_llama, tmp_path):
    out = tmp_path / "small"
    report = surgeon.run(recipe(layout=layout), model=scaled_llama, out=out)
    code = layout == "per_layer"
    assert (out / "modeling_per_layer.py").is_file() == code
    assert {one.loader: one.verdict for one in report.loads}["vllm"] == ("no" if code else "yes")
    assert report.measured["comparison"]["ok"]
    small = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=code)
    sizes = [layer.mlp.down_proj.weight.shape[1] for layer in small.model.layers]
    assert (len(set(sizes)) > 1) == code
    assert report.after.parameters == sum(p.numel() for p in small.parameters())
    comparison, checks = verify_folder(out, scaled_llama)
    assert comparison.ok
    assert ("with trust_remote_code" in checks[1]) == code
    assert "remote code" in (out / "README.md").read_text() or not code


def test_replay_in_the_layout_that_was_planned(scaled_llama, tmp_path):
    plan_report(recipe(layout="per_layer"), model=scaled_llama, out=tmp_path / "plan.json")
    with pytest.raises(surgeon.SurgeonError, match="cannot give its blocks different widths"):
        replay(tmp_path / "plan.json", model=scaled_llama, out=tmp_path / "plain")
    report = replay(tmp_path / "plan.json", model=scaled_llama, out=tmp_path / "small", layout="per_layer")
    assert report.loads[0].verdict == "with remote code"
    assert json.loads((tmp_path / "small" / "config.json").read_text())["per_layer_config"]


def test_in_memory(scaled_llama):
    model = surgeon.load(scaled_llama)
    plan = surgeon.plan(model, recipe(layout="per_layer"))
    assert len(widths(plan)) > 1
    for layout in ("padded", "per_layer"):
        assert surgeon.verify(model, surgeon.apply(model, plan, layout), plan).ok


def test_the_allocator_stays_within_what_must_load(scaled_llama):
    free = surgeon.plan(scaled_llama, recipe(layout="per_layer"))
    assert len(widths(free)) > 1
    bound = surgeon.plan(scaled_llama, recipe(layout="per_layer", must_load=["transformers", "vllm"]))
    assert len(widths(bound)) == 1
    same = surgeon.plan(scaled_llama, recipe(layout="per_layer", must_load=["transformers"]))
    assert same.edits == free.edits


def test_must_load_keeps_the_doctor_content(scaled_llama):
    report = plan_report(recipe(layout="per_layer", must_load=["vllm"]), model=scaled_llama)
    assert {one.loader: one.verdict for one in report.loads}["vllm"] == "yes"
    assert not report.warnings
