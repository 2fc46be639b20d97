"""Plans and cuts by what an earlier plan found out: the bytes of the thorough way, without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import surgeon
from surgeon.api import outlined as module
from surgeon.api import outlining
from surgeon.api.outlined import outlined
from surgeon.api.plan import plan_report
from surgeon.errors import CheckpointError, InputError, RecipeError
from surgeon.io.copies import copies_file
from surgeon.io.outlines import Outlines
from surgeon.io.slices import Files
from surgeon.io.weights import find_weights
from surgeon.recipe import load_recipe
from tests.conftest import llama_config

FFN = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.75}, "criterion": "magnitude"}
HEADS = {"op": "remove", "select": {"kind": "kv_group"}, "keep": {"count": 1}, "criterion": "magnitude"}
DEPTH = {"op": "drop_blocks", "keep": {"count": 2}, "criterion": "magnitude"}
TIED = {"op": "lock", "select": {"kind": "ffn", "blocks": "0:1"}}
SAME = ("model.safetensors", "config.json", "generation_config.json", "plan.json", "surgeon.yaml")
WITHOUT = """
import sys
from surgeon.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert not {"torch", "transformers", "networkx", "safetensors"} & set(sys.modules), sorted(sys.modules)
"""


def recipe(*steps, **more):
    return {"surgeon": 1, "steps": list(steps), **more}


def alike(one: Path, other: Path) -> None:
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(autouse=True)
def unplugged(monkeypatch):
    """Plugins that other tests of the process loaded stay loaded; here there are none."""
    for where in (module, outlining):
        monkeypatch.setattr(where, "plugged", lambda: False)


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """A cache with the graph of the small model, so that it is traced once."""
    folder = tmp_path_factory.mktemp("findings")
    surgeon.plan(llama_config(), recipe({**DEPTH, "criterion": "tail"}), cache=folder)
    return folder


@pytest.fixture
def cache(findings, tmp_path):
    return shutil.copytree(findings, tmp_path / "cache")


@pytest.fixture
def known(monkeypatch):
    """From now on the thorough way is closed."""

    def close():
        def closed(*arguments):
            raise AssertionError("the thorough way was taken")

        monkeypatch.setattr("surgeon.api.running.run_thoroughly", closed)
        monkeypatch.setattr("surgeon.api.measured_plan.planned_thoroughly", closed)

    return close


def cut(steps, model, out, cache, **more):
    return surgeon.run(recipe(*steps), model=model, out=out, cache=cache, proof=False, **more)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_second_run_imports_no_torch_and_writes_the_proven_bytes(small_llama, tmp_path, cache, dtype):
    model, file = tmp_path / "model", tmp_path / "recipe.json"
    small_llama().to(dtype).save_pretrained(model)
    file.write_text(json.dumps(recipe(FFN, DEPTH)))
    surgeon.run(file, model=model, out=tmp_path / "proven", cache=cache)
    surgeon.run(file, model=model, out=tmp_path / "first", proof=False)
    arguments = ["run", str(file), "--model", str(model), "--cache", str(cache), "--quick"]
    for way in ("plain", "json"):
        out = tmp_path / way
        said = ["--json"] if way == "json" else []
        subprocess.run(
            [sys.executable, "-c", WITHOUT, *arguments, *said, "--out", str(out)],
            check=True,
            capture_output=True,
        )
        alike(out, tmp_path / "proven")
        alike(out, tmp_path / "first")
        for name in ("report.json", "README.md", "report.html"):
            assert (out / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
        assert {f.name for f in out.iterdir()} == {f.name for f in (tmp_path / "first").iterdir()}


@pytest.mark.parametrize(
    "steps",
    [
        (FFN,),
        (HEADS, FFN),
        (FFN, {**DEPTH, "criterion": "tail"}),
        ({**FFN, "allocation": "global"},),
        ({**FFN, "shots": 2},),
    ],
)
def test_other_indices_of_as_much_are_cut_by_what_is_known(saved_llama, tmp_path, cache, known, steps):
    model, other = saved_llama(), saved_llama("other", seed=1)
    plan_report(recipe(*steps), model=model, cache=cache)
    cut(steps, other, tmp_path / "thorough", None)
    known()
    report = cut(steps, other, tmp_path / "quick", cache)
    alike(tmp_path / "quick", tmp_path / "thorough")
    assert report.to_dict() == json.loads((tmp_path / "quick" / "report.json").read_text())
    by_l1 = [
        {**step, "criterion": {"criterion": "magnitude", "norm": "l1"}} if step["op"] == "remove" else step
        for step in steps
    ]
    assert cut(by_l1, model, tmp_path / "l1", cache).after == report.after


def test_a_plan_by_what_is_known_is_the_plan(saved_llama, tmp_path, cache, known):
    model = saved_llama()
    steps = ({**FFN, "criterion": "random"}, DEPTH)
    out, html = tmp_path / "plan.json", tmp_path / "plan.html"
    first = plan_report(recipe(*steps), model=model, cache=cache, out=out, html=html)
    written = [file.read_bytes() for file in (out, html, copies_file(out))]
    known()
    assert plan_report(recipe(*steps), model=model, cache=cache, out=out, html=html) == first
    assert [file.read_bytes() for file in (out, html, copies_file(out))] == written
    assert surgeon.plan(model, recipe(*steps), cache=cache).edits


def test_passes_are_carried_out(saved_llama, tmp_path, cache, known):
    model, steps = saved_llama(), (TIED, {**DEPTH, "criterion": "tail"})
    report = plan_report(recipe(*steps), model=model, cache=cache)
    known()
    assert plan_report(recipe(*steps), model=model, cache=cache) == report


@pytest.mark.parametrize(
    "change",
    [
        {"steps": [{**FFN, "keep": {"fraction": 0.5}}]},
        {"steps": [HEADS]},
        {"export": {"dtype": "float16"}},
        {"export": {"layout": "padded"}},
        {"steps": [{**FFN, "guard": {"metric": "kl", "max": 1.0}}]},
        {"steps": [{**FFN, "criterion": {"criterion": "torch_pruning"}}]},
    ],
)
def test_what_is_not_known_is_done_in_the_thorough_way(saved_llama, tmp_path, cache, change):
    model = saved_llama()
    plan_report(recipe(FFN), model=model, cache=cache)
    with Files() as files:
        read = load_recipe({**recipe(FFN), **change})
        assert outlined(read, model, cache, files, lambda *told: None) is None


def test_an_unknown_count_is_published_all_the_same(saved_llama, tmp_path, cache, known):
    model, steps = saved_llama(), ({**FFN, "keep": {"fraction": 0.5}},)
    plan_report(recipe(FFN), model=model, cache=cache)
    cut(steps, model, tmp_path / "first", cache)
    known()
    cut(steps, model, tmp_path / "second", cache)
    cut((FFN,), model, tmp_path / "earlier", cache)
    alike(tmp_path / "first", tmp_path / "second")


def kept(model, cache) -> bool:
    return Outlines(cache, model, find_weights(model)).load() is not None


def test_other_files_and_other_code_are_not_known(saved_llama, tmp_path, cache, monkeypatch):
    model, other = saved_llama(), saved_llama("other", intermediate_size=44)
    plan_report(recipe(FFN), model=model, cache=cache)
    assert kept(model, cache)
    assert not kept(other, cache)
    config = model / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert config.read_text() != text
    assert not kept(model, cache)
    config.write_text(text)
    assert kept(model, cache)
    tensors = {name: tensor.half() for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    assert not kept(model, cache)
    monkeypatch.setattr("surgeon.io.outlines.own_code", lambda *parts: "of another release")
    assert not kept(saved_llama("model"), cache)


def test_changed_modeling_code_is_not_known(saved_llama, tmp_path, cache):
    model = saved_llama()
    plan_report(recipe(FFN), model=model, cache=cache)
    (answers,) = (cache / "models").glob("*.answers.json")
    document = json.loads(answers.read_text())
    assert any("modeling_llama" in file for file in document["code"])
    moved = tmp_path / "modeling.py"
    for file in document["code"]:
        shutil.copyfile(file, moved)
    stamp = [moved.stat().st_size, moved.stat().st_mtime_ns]
    answers.write_text(json.dumps({**document, "code": {str(moved): stamp}}))
    assert kept(model, cache)
    os.utime(moved, ns=(1, 1))
    assert not kept(model, cache)
    moved.unlink()
    assert not kept(model, cache)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"code": 1}', b"\x80\x04cos\nsystem\n."])
@pytest.mark.parametrize("suffix", [".answers.json", ".outline"])
def test_a_broken_outline_is_none(saved_llama, tmp_path, cache, suffix, body):
    model = saved_llama()
    plan_report(recipe(FFN), model=model, cache=cache)
    (file,) = (cache / "models").glob(f"*{suffix}")
    file.write_bytes(body)
    assert not kept(model, cache)
    cut((FFN,), model, tmp_path / "out", cache)
    assert kept(model, cache)


def test_plugins_are_asked_in_the_thorough_way(saved_llama, cache, monkeypatch):
    model = saved_llama()
    plan_report(recipe(FFN), model=model, cache=cache)
    with Files() as files:
        assert outlined(load_recipe(recipe(FFN)), model, cache, files, lambda *told: None) is not None
        monkeypatch.setattr(module, "plugged", lambda: True)
        assert outlined(load_recipe(recipe(FFN)), model, cache, files, lambda *told: None) is None


def test_weights_that_are_not_finite_are_refused_as_ever(saved_llama, tmp_path, cache):
    model = saved_llama()
    plan_report(recipe(FFN), model=model, cache=cache)
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name][3, 2] = float("nan")
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"hold NaN or infinite values, in '{name}' first"):
        cut((FFN,), model, tmp_path / "out", cache)
    assert not (tmp_path / "out").exists()


def test_refusals_are_those_of_the_thorough_way(saved_llama, tmp_path, cache, known):
    model = saved_llama()
    wrong = {**FFN, "keep": {"count": 41}}
    plan_report(recipe(FFN), model=model, cache=cache)
    with pytest.raises(RecipeError) as thorough:
        plan_report(recipe(wrong), model=model)
    known()
    with pytest.raises(RecipeError) as quick:
        cut((wrong,), model, tmp_path / "out", cache)
    assert str(quick.value) == str(thorough.value)
    with pytest.raises(InputError, match="exists"):
        cut((FFN,), model, model, cache)


def test_a_source_that_changes_meanwhile_publishes_nothing(saved_llama, tmp_path, cache, known):
    model = saved_llama()
    plan_report(recipe(FFN), model=model, cache=cache)
    known()

    def touch(stage, done, total):
        if stage.startswith("step"):
            os.utime(model / "model.safetensors", ns=(1, 1))

    with pytest.raises(CheckpointError, match="changed while it was being read"):
        cut((FFN,), model, tmp_path / "out", cache, progress=touch)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_stopped_goes_on_after_its_last_whole_shard(saved_llama, tmp_path, cache, known):
    model, small = saved_llama(), {"export": {"shard_size": "40KB"}}
    plan_report(recipe(FFN), model=model, cache=cache)
    known()
    read, stopped, out = recipe(FFN, **small), tmp_path / "stopped", tmp_path / "out"

    def stop(stage, done, total):
        if stage == "write" and done > total / 2:
            raise KeyboardInterrupt

    surgeon.run(read, model=model, out=out, cache=cache, proof=False)
    with pytest.raises(KeyboardInterrupt):
        surgeon.run(read, model=model, out=stopped, cache=cache, proof=False, progress=stop)
    assert not stopped.exists()
    whole = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob(".stopped*/model-*.safetensors")}
    assert whole
    surgeon.run(read, model=model, out=stopped, cache=cache, proof=False)
    assert {name: (stopped / name).stat().st_mtime_ns for name in whole} == whole
    for file in out.iterdir():
        assert (stopped / file.name).read_bytes() == file.read_bytes(), file.name
