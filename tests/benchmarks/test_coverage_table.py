"""The generated page, from rows as the harness writes them."""

from __future__ import annotations

import pytest

from benchmarks.coverage_table import page, trip


def row(*, ffn="uniform", heads="uniform", depth=True, reload=True, cut=None):
    kinds = {
        "ffn": {"ok": True, "cut": ["160 → 120"], "layout": ffn, "why": None},
        "kv_group": {"ok": heads is not None, "cut": ["8 → 6"], "layout": heads, "why": "tied to the width"},
    }
    fine = all(words["ok"] for words in kinds.values())
    said = {"ok": reload, "generate": "logits agree"}
    return {
        "family": "causal/some",
        "stages": {
            "build": {"ok": True},
            "trace": {
                "ok": True,
                "kinds": {"ffn": [3, 1], "position": [0, 2]},
                "locks": {"a reason": 3},
                "stacks": {"layers": 3},
            },
            "prove": {"ok": True, "proven": 3, "failed": {}},
            "cut": {"ok": fine, "kinds": kinds, "why": None if fine else "kv_group: tied to the width"},
            "depth": {"ok": depth, "dropped": ["layers.2"], "why": None if depth else "no field counts them"},
            "export": {"ok": True, "why": None},
            "reload": {"ok": reload, "uniform": said, "why": None if reload else "differs"},
        },
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "whole"),
        ({"heads": "per_layer"}, "per layer"),
        ({"heads": None}, "in part"),
        ({"depth": False}, "in part"),
        ({"reload": False}, "none"),
    ],
)
def test_how_far_a_round_trip_went(changes, expected):
    assert trip(row(**changes)) == expected


def test_a_family_that_stopped_early_made_no_trip():
    assert trip({"family": "causal/some", "stages": {"build": {"ok": False, "why": "no"}}}) == "none"


def test_the_page_counts_trips_and_says_what_was_refused():
    rows = [row(), row(heads="per_layer"), row(heads=None)]
    text = page(rows, "5.0")
    assert "| causal | 3 | 3 of 3 | 3 of 3 | 3 of 3 | 50.0% | 75.0% | 1 of 3 | 1 | 1 | 0 |" in text
    assert "kv_group 8 → 6 per layer" in text
    assert "cut: kv_group: tied to the width" in text
    assert "whole; logits agree" in text


def test_the_page_lists_causal_families_that_lack_something():
    kinds = {
        "dense": {"ffn": [3, 0], "kv_group": [3, 0], "position": [0, 2]},
        "states": {"state": [3, 0]},
        "slopes": {"ffn": [3, 0], "kv_group": [0, 1]},
        "tangled": {"channel": [4, 0], "expert": [1, 2]},
    }
    rows = [row() for _ in kinds]
    for one, (name, found) in zip(rows, kinds.items(), strict=True):
        one["family"] = f"causal/{name}"
        one["stages"]["trace"]["kinds"] = found
    text = page(rows, "5.0")
    assert "2 of 4 have a free `ffn` (or `state`)" in text
    assert "| slopes | 1 kv_group locked |" in text
    assert "| tangled | no free ffn, 2 expert locked |" in text
