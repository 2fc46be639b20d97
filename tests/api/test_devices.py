"""Where a verb computes: refused where it cannot, the same plan where a map lays the model out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import surgeon
from surgeon.errors import CheckpointError, InputError
from surgeon.io import read_plan

ROOT = Path(__file__).resolve().parent.parent.parent
IDS = torch.randint(3, 53, (6, 12), generator=torch.Generator().manual_seed(0)).tolist()
RECIPE = {
    "surgeon": 1,
    "calibration": {"texts": "ids.json"},
    "steps": [
        {
            "op": "remove",
            "select": {"kind": ["ffn", "kv_group"]},
            "keep": {"fraction": 0.67},
            "criterion": "flap",
            "repair": {"repair": "refit", "constant": False},
        }
    ],
}
MAP = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "cpu"}


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there(saved_llama, device):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(
        InputError, match=f"the device '{device}' is not on this machine.*only the cpu"
    ) as error:
        surgeon.plan(saved_llama(), RECIPE, texts=[IDS], device=device)
    assert "--device cpu" in error.value.hint


def test_a_device_that_nobody_knows(saved_llama):
    with pytest.raises(InputError, match="there is no device 'abacus'"):
        surgeon.plan(saved_llama(), RECIPE, texts=[IDS], device="abacus")


def test_a_map_over_devices_plans_the_same(saved_llama, tmp_path):
    pytest.importorskip("accelerate")
    model = saved_llama()
    expected = surgeon.plan(model, RECIPE, texts=[IDS])
    for chosen in ("auto", {**MAP, "model.layers.2": "cpu", "model.norm": "cpu", "lm_head": "cpu"}):
        found = surgeon.plan(model, RECIPE, texts=[IDS], device_map=chosen)
        if not torch.cuda.is_available():
            assert found.edits == expected.edits


def test_a_map_that_leaves_weights_out(saved_llama, tmp_path):
    pytest.importorskip("accelerate")
    chosen = {
        **MAP,
        "model.layers.2": "disk",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    }
    with pytest.raises(CheckpointError, match=r"found no room on the devices|cannot be loaded"):
        surgeon.plan(saved_llama(), RECIPE, texts=[IDS], device_map=chosen)


def test_a_map_without_accelerate(saved_llama, monkeypatch):
    monkeypatch.setattr("surgeon.io.loading.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package accelerate"):
        surgeon.plan(saved_llama(), RECIPE, texts=[IDS], device_map="auto")


def together(arguments, folder):
    """Run the command line on two ranks; what the one that speaks has printed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "surgeon.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kept_in(file):
    document = json.loads(file.read_text())
    return {edit["axis"]: tuple(edit["indices"]) for edit in document["edits"] if edit["edit"] == "keep"}


def test_two_ranks_that_stream_plan_what_one_does(small_llama, tmp_path):
    """Each runs its samples through the blocks, there and back; what they summed is joined in every block."""
    small_llama().bfloat16().save_pretrained(tmp_path / "model")
    width = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.67}, "criterion": "gblm"}
    steps = [
        {**width, "repair": {"repair": "refit", "target": "layer"}},
        {**RECIPE["steps"][0], "select": {"kind": "kv_group"}},
    ]
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    (tmp_path / "recipe.json").write_text(json.dumps({**RECIPE, "steps": steps}))
    options = ["--model", tmp_path / "model", "--out", tmp_path / "plan.json", "--json", "--stream"]
    said = together(["plan", tmp_path / "recipe.json", *options, "--cache", tmp_path / "cache"], tmp_path)
    assert [step["op"] for step in json.loads(said)["steps"]] == ["remove", "remove"]
    alone = surgeon.plan(tmp_path / "model", tmp_path / "recipe.json", stream=True)
    assert kept_in(tmp_path / "plan.json") == alone.kept()
    found = read_plan(tmp_path / "plan.json")
    assert set(found.values) == set(alone.values)
    for name, value in alone.values.items():
        torch.testing.assert_close(found.values[name].values(), value, rtol=2e-2, atol=1e-3)


def test_two_ranks_plan_and_write_what_one_does(saved_llama, tmp_path):
    model, recipe = saved_llama(), tmp_path / "recipe.json"
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    recipe.write_text(json.dumps(RECIPE))
    out = tmp_path / "small"
    command = ["run", recipe, "--model", model, "--out", out, "--json", "--no-cache"]
    report = json.loads(together(command, tmp_path))  # one object, of one rank
    assert report["steps"][0]["op"] == "remove"
    alone = surgeon.plan(model, recipe)
    assert kept_in(out / "plan.json") == alone.kept()
    written = surgeon.load(out)
    cut = surgeon.apply(surgeon.load(model), alone)
    for name, tensor in cut.state_dict().items():
        torch.testing.assert_close(written.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)
