"""Numbers and names as people read them: prefixes, changes, rows put together."""

from __future__ import annotations

import pytest

from surgeon.api.alike import alike, is_of_blocks, named_together, ranges
from surgeon.api.numbers import amount_text, change_text, cost_rows, setting_text, size_text
from surgeon.plan import Choice, Cost, Report, StepRecord


@pytest.mark.parametrize(
    ("number", "unit", "said"),
    [(999, "", "999"), (1240000, "", "1.24 M"), (2.48e9, "B", "2.48 GB"), (3e9, "", "3 B"), (0, "B", "0 B")],
)
def test_sizes_have_a_prefix(number, unit, said):
    assert size_text(number, unit) == said


def test_amounts_and_changes():
    assert amount_text(1024, "B/token") == "1.024 kB/token"
    assert amount_text(2.34567, "ms") == "2.346 ms"
    assert amount_text(22.5678, "") == "22.57"
    assert [change_text(*pair) for pair in ((4, 3), (4, 5), (4, 4), (0, 1))] == [
        "-25.0%",
        "+25.0%",
        "same",
        "",
    ]
    assert (setting_text(None), setting_text(4), setting_text([1, 2])) == ("unset", "4", "[1, 2]")


def test_costs_are_those_of_the_plan_until_something_is_measured():
    planned = Report(
        model="m", before=Cost(parameters=4000, bytes=8000), after=Cost(parameters=3000, bytes=6000)
    )
    assert cost_rows(planned) == (
        ("parameters", "4 k", "3 k", "-25.0%"),
        ("weights", "8 kB", "6 kB", "-25.0%"),
    )
    metrics = {"perplexity": {"unit": "", "before": 10.5, "after": 21.0}}
    measured = planned.model_copy(update={"measured": {"metrics": metrics}})
    assert cost_rows(measured) == (("perplexity", "10.5", "21", "+100.0%"),)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([], ""), ([3], "3"), ([0, 1], "0,1"), ([2, 0, 1], "0-2"), ([0, 1, 2, 3, 5, 7, 8], "0-3,5,7,8")],
)
def test_ranges(numbers, said):
    assert ranges(numbers) == said


def test_names_that_differ_in_a_number():
    assert (
        named_together(["layers.0.mlp.ffn", "layers.1.mlp.ffn", "layers.2.mlp.ffn"]) == "layers.0-2.mlp.ffn"
    )
    assert named_together(["hidden"]) == "hidden"
    assert named_together(["a.0.b.1", "a.1.b.2"]) == "a.0.b.1, a.1.b.2"
    assert named_together(["a.0", "b"]) == "a.0, b"


def test_choices_that_say_the_same_are_one_row():
    def of(axis, kept, why=""):
        return Choice(axis=axis, size=8, kept=kept, why=why)

    rows = alike(
        [of("l.0.ffn", 4), of("l.0.kv", 4), of("l.1.ffn", 4), of("l.2.ffn", 5), of("l.3.ffn", 4, "so")]
    )
    assert [[choice.axis for choice in row] for row in rows] == [
        ["l.0.ffn", "l.1.ffn"],
        ["l.0.kv"],
        ["l.2.ffn"],
        ["l.3.ffn"],
    ]


def test_steps_on_blocks():
    block = Choice(axis="model.layers.0", size=1, kept=0)
    assert is_of_blocks(StepRecord(step=0, op="drop_blocks", choices=(block,)))
    assert not is_of_blocks(
        StepRecord(step=0, op="remove", choices=(block, Choice(axis="a", size=2, kept=1)))
    )
    assert not is_of_blocks(StepRecord(step=0, op="lock"))
