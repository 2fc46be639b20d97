"""The benchmark of the tracer runs, on a config small enough for a test."""

from __future__ import annotations

import json

import pytest

from benchmarks.trace import SHAPES, fresh, measured, shallower, table, trace_bare


@pytest.fixture
def fields(tiny_model):
    return json.loads((tiny_model / "config.json").read_text(encoding="utf-8"))


def test_a_config_becomes_a_line_of_the_table(fields):
    whole, half = trace_bare(fields), trace_bare(shallower(fields, 4))
    assert (whole["layers"], whole["blocks"], half["blocks"]) == (8, 8, 4)
    assert half["parameters"] < whole["parameters"]
    head, line = table({"tiny": {**whole, "half": half}}).splitlines()
    assert head.split()[:3] == ["shape", "params", "layers"]
    assert line.split()[:3] == ["tiny", "0.001B", "8"]


def test_what_cannot_be_traced_is_a_line_too():
    row = measured({"model_type": "llama", "hidden_size": 7}, limit=240)
    assert table({"odd": row}).splitlines()[1].startswith("odd                  failed: ")


def test_a_process_that_takes_too_long_is_stopped():
    assert fresh("trace", SHAPES["llama-70b"], limit=0.1) == {"error": "stopped after 0 s"}


def test_lists_that_name_every_layer_are_cut_with_the_depth():
    fields = {"num_hidden_layers": 4, "layer_types": list("abcd"), "eos_token_id": [1, 2]}
    assert shallower(fields, 2) == {"num_hidden_layers": 2, "layer_types": ["a", "b"], "eos_token_id": [1, 2]}
