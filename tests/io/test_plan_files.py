"""Plans and other documents on disk."""

from __future__ import annotations

import json

import pytest
import torch

from surgeon.errors import InputError
from surgeon.io import read_document, read_plan, write_document, write_plan
from surgeon.plan import Assign, Keep, Plan
from tests.conftest import llama_config
from tests.handmade import llama_graph

GRAPH = llama_graph(llama_config())
NAME = "model.layers.0.mlp.down_proj.weight"


def plan():
    edits = [Assign(NAME, "fold", {"by": 2}, 0), Keep("layers.0.mlp.ffn", (1, 2), 1)]
    return Plan("llama", (), "sha256:0").add(edits, {NAME: torch.randn(48, 40).t().contiguous().t()})


def test_round_trip(tmp_path):
    made = plan()
    write_plan(made, GRAPH, tmp_path / "plan.json")
    read = read_plan(tmp_path / "plan.json", GRAPH)
    assert read == made
    assert torch.equal(read.values[NAME], made.values[NAME])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.json", "plan.safetensors"]


def test_without_values_there_is_one_file(tmp_path):
    made = Plan("llama").add([Keep("hidden", (1, 2), 0)])
    write_plan(made, GRAPH, tmp_path / "p.json")
    assert read_plan(tmp_path / "p.json") == made
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_values_file_is_gone(tmp_path):
    write_plan(plan(), GRAPH, tmp_path / "plan.json")
    (tmp_path / "plan.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot be read from .*plan\.safetensors"):
        read_plan(tmp_path / "plan.json")


def test_values_of_another_plan(tmp_path):
    write_plan(plan(), GRAPH, tmp_path / "plan.json")
    document = json.loads((tmp_path / "plan.json").read_text())
    document["edits"] = document["edits"][1:]
    write_document(document, tmp_path / "plan.json")
    with pytest.raises(InputError, match="disagree on what is assigned"):
        read_plan(tmp_path / "plan.json")


def test_unwritable_place(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_plan(plan(), GRAPH, tmp_path / "nowhere" / "plan.json")
    with pytest.raises(InputError, match="cannot be written"):
        write_document({}, tmp_path / "nowhere" / "a.json")


def test_unreadable_documents(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_document(tmp_path / "nowhere.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_document(tmp_path / "a.json")


def test_document_replaces_whole(tmp_path):
    write_document({"a": 1}, tmp_path / "a.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_document({"a": float("nan")}, tmp_path / "a.json")
    assert read_document(tmp_path / "a.json") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
