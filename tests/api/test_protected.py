"""What a pass locks, a later step leaves alone, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.api.planning import make_plan
from surgeon.api.progress import silent
from surgeon.api.subject import Subject
from surgeon.errors import SelectorError
from surgeon.recipe import load_recipe

MODEL = Path(__file__).parents[2] / "examples" / "models" / "tiny-1m"


def planned(locked: str, *passes: dict):
    recipe = load_recipe(
        {
            "surgeon": 1,
            "steps": [
                {"op": "lock", "select": {"kind": "ffn", "blocks": locked}, "reason": "ours"},
                *passes,
                {
                    "op": "remove",
                    "select": {"kind": "ffn"},
                    "keep": {"fraction": 0.5},
                    "criterion": "magnitude",
                },
            ],
            "export": {"layout": "per_layer"},
        }
    )
    return make_plan(Subject(MODEL), recipe, None, silent)


def test_a_locked_axis_is_left_alone_and_reported():
    found = planned("2:")
    assert sorted(found.plan.kept()) == ["layers.0.mlp.ffn", "layers.1.mlp.ffn"]
    left = found.report.steps[-1].refused
    assert [row.axis for row in left] == [f"layers.{n}.mlp.ffn" for n in range(2, 8)]
    assert {row.reason for row in left} == {"ours"}


def test_what_a_later_pass_unlocks_is_cut_again():
    found = planned("2:", {"op": "unlock", "select": {"kind": "ffn", "blocks": 5}, "reason": "ours"})
    assert sorted(found.plan.kept()) == [f"layers.{n}.mlp.ffn" for n in (0, 1, 5)]


def test_nothing_left_is_an_error_with_the_reason():
    with pytest.raises(SelectorError, match=r"all 8 selected axes are locked by passes .*ours"):
        planned(":")
