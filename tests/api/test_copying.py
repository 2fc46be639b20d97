"""A plan that only selects, carried out by copying: the bytes of the proven way, without torch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from surgeon.api.copying import copy
from surgeon.api.plan import plan_report
from surgeon.api.replay import replay
from surgeon.api.verify import verify_folder
from surgeon.cli.app import app
from surgeon.errors import InputError
from surgeon.io.copies import copies_file, write_copies
from surgeon.io.shards import Piece
from surgeon.io.side_files import OURS
from surgeon.rebuild.per_layer_class import MODELING_FILE

STEPS = [
    {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.5}, "criterion": "random"},
    {"op": "drop_blocks", "keep": {"count": 2}, "criterion": "tail"},
]
WITHOUT = """
import sys
from surgeon.cli import main
sys.argv[1:1] = ["apply"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert not {"torch", "transformers", "networkx", "rich"} & set(sys.modules), sorted(sys.modules)
"""


@pytest.fixture
def planned(saved_llama, tmp_path):
    model, plan = saved_llama(), tmp_path / "plan.json"
    plan_report({"surgeon": 1, "steps": STEPS}, model=model, out=plan)
    return plan, model


def test_the_bytes_of_the_proven_way(planned, tmp_path, monkeypatch):
    plan, model = planned
    quick, proven = tmp_path / "quick", tmp_path / "proven"
    assert copy(plan, model=model, out=quick, shard_size="40KB", checksums=True)
    monkeypatch.setattr("surgeon.api.publishing.room_for", lambda module, budget: False)
    replay(plan, model=model, out=proven, shard_size="40KB")
    shards = sorted(file.name for file in quick.glob("model*"))
    assert len(shards) > 2
    for name in (*shards, "config.json", "generation_config.json", "plan.json"):
        assert (quick / name).read_bytes() == (proven / name).read_bytes()
    for folder in (quick, proven):
        sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
        assert set(sums) == {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
        for name, found in sums.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == found
    assert verify_folder(quick, model)[0].ok
    assert (
        "each weight read at its use"
        in json.loads((proven / "report.json").read_text())["measured"]["checks"][1]
    )


def test_neither_torch_nor_transformers(planned, tmp_path, repo):
    plan, model = planned
    command = [
        sys.executable,
        "-c",
        WITHOUT,
        str(plan),
        "--model",
        str(model),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*command, "--quick"], env={**os.environ, "PYTHONPATH": str(repo)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "not compared with the masked original" in done.stdout
    assert "copy ..." in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_only_for_the_files_that_it_was_made_for(planned, tmp_path):
    plan, model = planned
    out = tmp_path / "out"
    assert not copy(plan, model="owner/name", out=out)
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert not copy(plan, model=model, out=out)
    shown = CliRunner().invoke(
        app, ["apply", str(plan), "--model", str(model), "--out", str(out), "--quick", "--json"]
    )
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["surgeon_report"] == 1
    events = [json.loads(line) for line in shown.stderr.splitlines()]
    assert events[-1]["event"] == "summary"
    assert {"write", "cut"} <= {event.get("stage") for event in events}
    assert all(event["memory"] > 0 for event in events)
    copies_file(plan).unlink()
    assert not copy(plan, model=model, out=tmp_path / "more")


def test_a_broken_list_and_an_existing_output(planned, tmp_path):
    plan, model = planned
    with pytest.raises(InputError, match="exists"):
        copy(plan, model=model, out=model)
    file = copies_file(plan)
    document = json.loads(file.read_text())
    document["tensors"][0][1] = "odd"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="is broken: KeyError"):
        copy(plan, model=model, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_computed_has_no_list(planned):
    plan, model = planned
    assert copies_file(plan).is_file()
    assert not write_copies(plan, [Piece("a", "U8", (1,), lambda: b"a")], {}, model)
    assert not copies_file(plan).exists()


def test_sizes_are_refused_before_any_work(planned, tmp_path):
    plan, model = planned
    for option, value in (("shard_size", "much"), ("memory", "many")):
        with pytest.raises(InputError, match="is no size"):
            replay(plan, model=model, out=tmp_path / "out", **{option: value})


def test_the_modeling_file_is_written_anew():
    assert MODELING_FILE in OURS
