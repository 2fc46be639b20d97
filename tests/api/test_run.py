"""The whole path: recipe in, published checkpoint out, and what must happen where it cannot be."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import surgeon
from surgeon.api.replay import replay
from surgeon.api.verify import verify_folder
from surgeon.errors import CheckpointError, InputError, PlanError, SurgeonError, VerifyError

CUT = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.75}, "criterion": "magnitude"}
RECIPE = {"surgeon": 1, "steps": [CUT]}
FILES = {"config.json", "model.safetensors", "plan.json", "report.json", "surgeon.yaml", "README.md"}


@pytest.fixture
def published(saved_llama, tmp_path):
    model, out = saved_llama(), tmp_path / "small"
    return model, out, surgeon.run(RECIPE, model=model, out=out)


def test_run_publishes_an_ordinary_checkpoint(published):
    model, out, report = published
    assert {file.name for file in out.iterdir()} >= FILES
    small, original = (AutoModelForCausalLM.from_pretrained(folder) for folder in (out, model))
    assert small.config.intermediate_size == 30
    assert sum(p.numel() for p in small.parameters()) == report.after.parameters
    assert sum(p.numel() for p in original.parameters()) == report.before.parameters
    assert [(row.field, row.old, row.new) for row in report.ledger] == [("intermediate_size", 40, 30)]
    assert json.loads((out / "report.json").read_text())["measured"]["comparison"]["ok"] is True
    assert "intermediate_size" in (out / "README.md").read_text()


def test_what_was_run_can_be_run_again_from_what_lies_beside_the_weights(published, tmp_path):
    model, out, _ = published
    surgeon.run(out / "surgeon.yaml", model=model, out=tmp_path / "again")
    replay(out / "plan.json", model=model, out=tmp_path / "replayed")
    wanted = (out / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == wanted
    assert (tmp_path / "replayed" / "model.safetensors").read_bytes() == wanted


def test_a_replay_takes_up_the_graph_that_planning_kept(published, tmp_path):
    model, out, _ = published
    stages: list[str] = []

    def replayed(name):
        stages.clear()
        replay(
            out / "plan.json",
            model=model,
            out=tmp_path / name,
            cache=tmp_path / "cache",
            progress=lambda stage, done, total: stages.append(stage),
        )
        return (tmp_path / name / "model.safetensors").read_bytes()

    first = replayed("first")
    assert "trace" in stages
    assert replayed("second") == first
    assert "trace" not in stages


def test_verify_a_folder_on_demand(published):
    model, out, _ = published
    comparison, checks = verify_folder(out, model)
    assert comparison.ok
    assert len(checks) == 4


def test_another_model_is_not_what_the_plan_was_made_for(published, saved_llama, tmp_path):
    _, out, _ = published
    other = saved_llama("other", seed=1)
    with pytest.raises(PlanError, match="the plan was made for weights sha256:"):
        replay(out / "plan.json", model=other, out=tmp_path / "wrong")
    with pytest.raises(PlanError, match="make the plan again"):
        verify_folder(out, other)
    assert not (tmp_path / "wrong").exists()


def test_verify_finds_a_changed_weight(published):
    model, out, _ = published
    small = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        small.model.layers[1].mlp.down_proj.weight[3, 4] += 0.1
    small.save_pretrained(out)
    with pytest.raises(VerifyError, match="differs from the masked original"):
        verify_folder(out, model)


@pytest.mark.parametrize("broken", ["compare", "check_reload"])
def test_a_failed_check_publishes_nothing(broken, saved_llama, tmp_path, monkeypatch):
    from surgeon.api import publishing

    def fail(*_, **__):
        raise VerifyError("not the same")

    monkeypatch.setattr(publishing, broken, fail)
    model, out = saved_llama(), tmp_path / "place" / "small"
    with pytest.raises(VerifyError, match="not the same"):
        surgeon.run(RECIPE, model=model, out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_an_interrupt_publishes_nothing(saved_llama, tmp_path):
    def stop(stage, done, total):
        if stage.startswith("reload"):
            raise KeyboardInterrupt

    model = saved_llama()
    with pytest.raises(KeyboardInterrupt):
        surgeon.run(RECIPE, model=model, out=tmp_path / "small", progress=stop)
    assert not (tmp_path / "small").exists()
    surgeon.run(RECIPE, model=model, out=tmp_path / "small")  # goes on after the shards that are whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "small"]


def test_half_precision_on_disk_and_small_shards(saved_llama, tmp_path):
    recipe = {**RECIPE, "export": {"dtype": "bfloat16", "shard_size": "20KB"}}
    surgeon.run(recipe, model=saved_llama(), out=tmp_path / "small")
    assert (tmp_path / "small" / "model.safetensors.index.json").is_file()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "small").dtype == torch.bfloat16


def test_refusals_before_anything_is_read(saved_llama, tmp_path):
    model = saved_llama()
    with pytest.raises(InputError, match="no output folder was given"):
        surgeon.run(RECIPE, model=model)
    with pytest.raises(InputError, match="no model was given"):
        surgeon.run(RECIPE, out=tmp_path / "small")
    with pytest.raises(InputError, match="exists"):
        surgeon.run(RECIPE, model=model, out=tmp_path)
    with pytest.raises(InputError, match="lies inside the model folder"):
        surgeon.run(RECIPE, model=model, out=model / "small")


def test_scores_on_text_without_text(saved_llama, tmp_path):
    recipe = {"surgeon": 1, "steps": [{**CUT, "criterion": "taylor"}]}
    with pytest.raises(SurgeonError, match="there is no calibration text"):
        surgeon.run(recipe, model=saved_llama(), out=tmp_path / "small")


def test_text_without_a_tokenizer_and_ids_without_one(saved_llama, tmp_path):
    recipe = {"surgeon": 1, "steps": [{**CUT, "criterion": "taylor"}]}
    model, text = saved_llama(), tmp_path / "text.txt"
    text.write_text("Some words. " * 50)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        surgeon.plan(model, recipe, texts=[text])
    ids = torch.randint(3, 53, (4, 16), generator=torch.Generator().manual_seed(0))
    assert surgeon.plan(model, recipe, texts=[ids]).edits
    with pytest.raises(InputError, match="holds id 99"):
        surgeon.plan(model, recipe, texts=[ids.clamp(max=40) + 59])


def test_a_plan_of_steps_that_read_no_weight_needs_only_a_config(saved_llama):
    model = saved_llama()
    for file in model.glob("*.safetensors"):
        file.unlink()
    plan = surgeon.plan(model, {"surgeon": 1, "steps": [{**CUT, "criterion": "random"}]})
    assert plan.fingerprint is None
    assert len(plan.edits) == 3
    with pytest.raises(CheckpointError, match="no weights"):
        surgeon.plan(model, RECIPE)


def test_in_memory(small_llama):
    model = small_llama()
    before = {name: p.clone() for name, p in model.named_parameters()}
    plan = surgeon.plan(model, RECIPE)
    small = surgeon.apply(model, plan)
    assert type(small) is type(model)
    assert small.config.intermediate_size == 30
    assert model.config.intermediate_size == 40
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert surgeon.verify(model, small, plan).require().relative < 1e-5
    with torch.no_grad():
        small.model.norm.weight[0] += 1
    assert not surgeon.verify(model, small, plan).ok


def test_the_weights_of_a_config_are_nowhere(small_llama):
    with pytest.raises(InputError, match="only its config was given"):
        surgeon.plan(small_llama().config, RECIPE)


def test_passes_are_recorded_and_obeyed(small_llama):
    lock = {"op": "lock", "select": {"kind": "ffn", "blocks": 0}, "reason": "stays"}
    with pytest.raises(SurgeonError, match="stays"):
        surgeon.plan(small_llama(), {"surgeon": 1, "steps": [lock, CUT]})


def test_weights_that_change_or_vanish_while_a_plan_is_made(saved_llama, tmp_path):
    model = saved_llama()
    file = model / "model.safetensors"

    def change(stage, done, total):
        if stage == "cut":
            raw = bytearray(file.read_bytes())
            raw[-40:] = bytes(40)
            file.write_bytes(raw)

    with pytest.raises(CheckpointError, match="were changed while the plan was made"):
        surgeon.run(RECIPE, model=model, out=tmp_path / "small", progress=change)
    with pytest.raises(CheckpointError, match="put the file back"):
        surgeon.run(
            RECIPE,
            model=model,
            out=tmp_path / "small",
            progress=lambda stage, done, total: file.unlink(missing_ok=True) if stage == "cut" else None,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_quick_compares_nothing(saved_llama, tmp_path):
    report = surgeon.run(RECIPE, model=saved_llama(), out=tmp_path / "small", proof=False)
    assert report.measured == {}
    assert not (tmp_path / "small" / "SHA256SUMS").exists()
    with pytest.raises(InputError, match="is no size"):
        surgeon.run(RECIPE, model=tmp_path / "model", out=tmp_path / "more", memory="much")
