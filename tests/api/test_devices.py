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


def test_two_ranks_plan_and_write_what_one_does(saved_llama, tmp_path):
    model, recipe = saved_llama(), tmp_path / "recipe.json"
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    recipe.write_text(json.dumps(RECIPE))
    out = tmp_path / "small"
    command = ["run", str(recipe), "--model", str(model), "--out", str(out), "--json", "--no-cache"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "surgeon.cli", *command],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)  # one object, of one rank
    assert report["steps"][0]["op"] == "remove"
    alone = surgeon.plan(model, recipe)
    document = json.loads((out / "plan.json").read_text())
    kept = {edit["axis"]: tuple(edit["indices"]) for edit in document["edits"] if edit["edit"] == "keep"}
    assert kept == alone.kept()
    written = surgeon.load(out)
    cut = surgeon.apply(surgeon.load(model), alone)
    for name, tensor in cut.state_dict().items():
        torch.testing.assert_close(written.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)
