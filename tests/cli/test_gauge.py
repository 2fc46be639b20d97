"""Where the time went: from the start of the process, and the parts add up to the whole."""

from __future__ import annotations

import json
import re
import time

import pytest

from surgeon.cli.gauge import gauge, running


def test_the_parts_add_up_to_the_life_of_the_process(capsys):
    with gauge() as told:
        told("one", 0, None)
        time.sleep(0.2)
        told("two", 0, 10)
        time.sleep(0.1)
        told.rest()
        time.sleep(0.1)
    assert set(told.spent) == {"start", "one", "two", "report"}
    assert sum(told.spent.values()) == pytest.approx(running(), abs=0.05)
    line = capsys.readouterr().err.splitlines()[-1]
    whole, *parts = map(float, re.findall(r"([\d.]+) s\b", line))
    assert whole == pytest.approx(sum(parts), abs=0.05 * len(told.spent))


def test_events_end_with_a_summary(capsys):
    with gauge(events=True) as told:
        told("one", 1, 2)
        told.rest()
        assert capsys.readouterr().err.count("\n") == 1
    summary = json.loads(capsys.readouterr().err)
    assert summary["event"] == "summary"
    assert list(summary["seconds"]) == ["start", "one", "report"]


def test_a_process_that_is_not_the_first_of_its_launcher_tells_nothing(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with gauge() as told:
        told("one", 0, None)
        told.rest()
    assert capsys.readouterr().err == ""
