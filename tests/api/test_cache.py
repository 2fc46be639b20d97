"""Planning again: from what was measured, or measured anew where anything differs."""

from __future__ import annotations

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import surgeon
from surgeon.plan import Plan

RECIPE = {
    "surgeon": 1,
    "calibration": {"texts": "absent.json"},
    "steps": [
        {
            "op": "remove",
            "select": {"kind": "ffn"},
            "keep": {"fraction": 0.75},
            "criterion": "flap",
            "repair": "refit",
        }
    ],
}


@pytest.fixture
def folder(saved_llama):
    return saved_llama()


def planned(model, tmp_path, **changes) -> tuple[Plan, bool]:
    """A plan, and whether the model was run for it."""
    stages: list[str] = []
    plan = surgeon.plan(
        model,
        RECIPE,
        texts=changes.pop("texts", [[3, 5, 7, 11, 13, 17, 19, 23], [2, 4, 8, 16, 32, 9, 18, 36]]),
        cache=tmp_path / "cache",
        progress=lambda stage, done, total: stages.append(stage),
        **changes,
    )
    return plan, any(stage.startswith("measure") for stage in stages)


def same(one: Plan, other: Plan) -> bool:
    return one.edits == other.edits and all((one.values[n] == other.values[n]).all() for n in one.values)


def test_another_ratio_runs_no_model(folder, tmp_path):
    first, ran = planned(folder, tmp_path)
    assert ran
    again, ran = planned(folder, tmp_path)
    assert not ran
    assert same(first, again)
    half, ran = planned(folder, tmp_path, overrides=["steps.0.keep.fraction=0.5"])
    assert not ran
    alone, _ = planned(folder, tmp_path / "other", overrides=["steps.0.keep.fraction=0.5"])
    assert same(half, alone)


def test_measured_losses_serve_another_ratio(folder, tmp_path):
    step = {"keep": {"fraction": 0.75}, "criterion": "obs", "allocation": {"allocation": "by_loss"}}
    steps = [{"op": "remove", "select": {"kind": "ffn"}, "repair": "refit", **step}]
    export = {"layout": "per_layer"}

    def ran(fraction) -> set[str]:
        stages: set[str] = set()
        surgeon.plan(
            folder,
            {**RECIPE, "steps": steps, "export": export},
            texts=[[3, 5, 7, 11, 13, 17, 19, 23], [2, 4, 8, 16, 32, 9, 18, 36]],
            cache=tmp_path / "cache",
            overrides=[f"steps.0.keep.fraction={fraction}", "steps.0.repair={repair: refit, target: layer}"],
            progress=lambda stage, done, total: stages.add(stage),
        )
        return {stage for stage in stages if stage.startswith("measure")}

    assert "measure divergences" in ran(0.75)
    assert not ran(0.5)


def test_a_search_for_fewer_layers_starts_where_the_last_one_ended(folder, tmp_path):
    step = {"op": "drop_blocks", "keep": {"count": 2}, "criterion": "perplexity", "shots": "each"}

    def tried(count) -> list[str]:
        stages: list[str] = []
        surgeon.plan(
            folder,
            {**RECIPE, "steps": [step]},
            texts=[[3, 5, 7, 11, 13, 17, 19, 23], [2, 4, 8, 16, 32, 9, 18, 36]],
            cache=tmp_path / "cache",
            overrides=[f"steps.0.keep.count={count}"],
            progress=lambda stage, done, total: stages.append(stage) if stage.startswith("try") else None,
        )
        return sorted(set(stages))

    assert tried(2) == ["try 2 cuts of the depth"]
    assert tried(2) == []
    assert tried(1) == ["try 1 cuts of the depth"]


def test_one_changed_weight_is_another_model(folder, tmp_path):
    planned(folder, tmp_path)
    file = next(folder.glob("*.safetensors"))
    with safe_open(file, "pt") as tensors:
        held = {name: tensors.get_tensor(name) for name in tensors.keys()}
        metadata = tensors.metadata()
    held["model.layers.0.mlp.up_proj.weight"][7, 9] += 1
    save_file(held, file, metadata)
    _, ran = planned(folder, tmp_path)
    assert ran


def test_other_text_is_another_measurement(folder, tmp_path):
    planned(folder, tmp_path)
    _, ran = planned(folder, tmp_path, texts=[[3, 5, 7, 11, 13, 17, 19, 24], [2, 4, 8, 16, 32, 9, 18, 36]])
    assert ran


def test_a_module_in_memory_is_known_by_its_weights(small_llama, tmp_path):
    first, ran = planned(small_llama(), tmp_path)
    assert ran
    again, ran = planned(small_llama(), tmp_path)
    assert not ran
    assert same(first, again)
    _, ran = planned(small_llama(seed=1), tmp_path)
    assert ran


def test_no_cache_keeps_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "default"))
    surgeon.plan(folder, RECIPE, texts=[[3, 5, 7, 11], [2, 4, 8, 16]])
    assert not (tmp_path / "default").exists()
