"""A streamed repair or sequential measurement that is killed goes on at its block, with the same bits."""

from __future__ import annotations

import pytest
import torch

import surgeon
from surgeon.operations import bridging, repairing, sequential
from tests.stopping import interrupted_behind

IDS = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
STEP = {"op": "remove", "select": {"kind": ["ffn", "kv_group"]}, "keep": {"fraction": 0.67}}
STEPS = {
    "toward the stream": {
        **STEP,
        "criterion": "magnitude",
        "repair": {"repair": "refit", "target": "stream"},
    },
    "sequential": {
        **STEP,
        "criterion": "wanda",
        "inputs": "sequential",
        "repair": {"repair": "refit", "target": "layer"},
    },
    "across gaps": {
        "op": "drop_blocks",
        "drop": [1],
        "repair": {"repair": "refit", "reach": "rest"},
    },
}


@pytest.fixture
def folder(small_llama, tmp_path):
    small_llama().bfloat16().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def waits_in_files(monkeypatch):
    monkeypatch.setattr("surgeon.io.waiting.SHARE", 10**12)


def planned(folder, step, cache=None):
    recipe = {"surgeon": 1, "steps": [step]}
    return surgeon.plan(folder, recipe, texts=[IDS], stream=True, cache=cache)


@pytest.mark.parametrize(
    ("way", "stop"),
    [("toward the stream", 2), ("sequential", 4), ("sequential", 5), ("sequential", 8), ("across gaps", 1)],
)
def test_stopped_behind_any_block_the_plan_is_the_same(
    folder, tmp_path, monkeypatch, waits_in_files, way, stop
):
    ways = {
        "toward the stream": (repairing, "stream_gap"),
        "sequential": (sequential, "gather_at_block"),
        "across gaps": (bridging, "bridge_gap"),
    }
    where, name = ways[way]
    original, done = getattr(where, name), []
    monkeypatch.setattr(where, name, lambda *args: done.append(1) or original(*args))
    undisturbed = planned(folder, STEPS[way])
    whole = len(done)

    with interrupted_behind(stop):
        planned(folder, STEPS[way], tmp_path / "cache")
    found = planned(folder, STEPS[way], tmp_path / "cache")
    assert found.edits == undisturbed.edits
    assert set(found.values) == set(undisturbed.values)
    for param, value in undisturbed.values.items():
        assert torch.equal(found.values[param], value), param
    assert len(done) == 2 * whole  # no block was measured twice
