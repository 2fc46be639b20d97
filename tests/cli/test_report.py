"""Printed reports: what a step chose, in 80 columns."""

from __future__ import annotations

import re
import sys

import pytest

from surgeon.cli.console import complain
from surgeon.cli.report import print_cost, print_measured, print_steps
from surgeon.errors import SurgeonError
from surgeon.plan import Choice, Cost, Loads, Refused, Report, StepRecord

COST = Cost(parameters=1_240_000, bytes=2_480_000, kv_cache_bytes_per_token=1024)


def printed(capsys, *records: StepRecord) -> str:
    print_steps(Report(model="m", before=COST, after=COST, steps=records))
    return capsys.readouterr().out


def test_a_cut_is_one_row_for_layers_that_are_alike(capsys):
    choices = tuple(
        Choice(axis=f"layers.{n}.mlp.ffn", size=512, kept=384, requested=380, why="the 128 lowest by taylor")
        for n in range(12)
    )
    refused = (Refused(axis="layers.0.attn.kv_group", reason="it is locked"),)
    shown = printed(capsys, StepRecord(step=0, op="remove", choices=choices, refused=refused, notes=("so",)))
    (row,) = (line for line in shown.splitlines() if "mlp.ffn" in line)
    assert row.split("  ")[0].strip() == "layers.0-11.mlp.ffn"
    for words in ("512", "384 (asked 380)", "the 128 lowest by taylor"):
        assert words in row
    assert "left alone: layers.0.attn.kv_group: it is locked" in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_blocks_go_or_stay(capsys):
    choices = tuple(
        Choice(axis=f"model.layers.{n}", size=1, kept=int(n != 2), why=f"block_influence 0.{n}")
        for n in range(4)
    )
    shown = printed(capsys, StepRecord(step=1, op="drop_blocks", choices=choices))
    assert "step 1: drop_blocks, 1 of 4 taken out" in shown
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("model.layers")]
    assert [row[1] for row in rows] == ["stays", "stays", "goes", "stays"]
    assert rows[2][2:] == ["block_influence", "0.2"]


def test_a_step_without_choices_is_a_line(capsys):
    assert printed(capsys, StepRecord(step=0, op="lock")).strip() == "step 0: lock"


@pytest.mark.parametrize("metrics", [{}, {"perplexity": {"unit": "", "before": 20.0, "after": 25.0}}])
def test_costs(capsys, metrics):
    print_cost(Report(model="org/m", before=COST, after=COST, measured={"metrics": metrics}))
    shown = capsys.readouterr().out
    assert "org/m" in shown
    assert ("+25.0%" in shown) == bool(metrics)
    assert ("1.024 kB/token" in shown) == (not metrics)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_is_never_overrun_and_words_stay_whole(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    long = (
        "asked for 80.00%: 79.69% of the selected parameters, 473280 of 593920 of them, and more to say here"
    )
    choices = (Choice(axis="layers.0.mlp.ffn", size=512, kept=384, why="the 128 lowest by taylor"),)
    records = (StepRecord(step=0, op="remove", choices=choices, notes=(long, long)),)
    loads = (Loads(loader="vllm", verdict="unsure", why=f"as the original, {long}"),)
    sample = {"prompt": long, "before": long * 2, "after": long}
    report = Report(model="m", before=COST, after=COST, steps=records, loads=loads, warnings=(long,))
    print_steps(report)
    print_measured(
        report.model_copy(update={"measured": {"metrics": {}, "sample": sample, "checks": [long]}})
    )
    complain(SurgeonError(long, hint=long))
    shown = "".join(capsys.readouterr())
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= columns
    assert plain.count("selected") == plain.count("asked for")
    assert " ".join(plain.split()).count(long) >= 6


def test_a_pipe_gets_whole_lines(capsys):
    long = "word " * 60
    printed_notes = printed(capsys, StepRecord(step=0, op="lock", notes=(long,)))
    assert f"  {long}" in printed_notes.splitlines()
