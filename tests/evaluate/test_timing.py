"""How often a call is timed: three times, and less often where each takes long."""

from __future__ import annotations

import itertools

import pytest
import torch

from surgeon.api import measuring
from surgeon.evaluate import timing


@pytest.mark.parametrize(("seconds", "calls"), [(0.5, 3), (3.0, 2), (60.0, 1)])
def test_long_calls_are_timed_less_often(monkeypatch, seconds, calls):
    clock = itertools.count(step=seconds)  # read before and after each call
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    made: list[int] = []
    taken = timing.median_seconds(lambda: 7, made.append, torch.device("cpu"))
    assert taken == seconds
    assert made == [7] * (1 + calls)  # the first warms up


@pytest.mark.parametrize(("patience", "turns"), [(1e9, measuring.TURNS), (-1.0, 1)])
def test_no_turn_begins_when_it_has_taken_long(monkeypatch, small_llama, patience, turns):
    monkeypatch.setattr(measuring, "PATIENCE", patience)
    told: list[tuple[int, int]] = []
    models = {measuring.ORIGINAL: small_llama(), "after": small_llama()}
    ids = torch.randint(3, 53, (24,), generator=torch.Generator().manual_seed(0))
    found = measuring._times(models, ids, {}, lambda stage, done, total: told.append((done, total)))
    assert told == [*((turn, measuring.TURNS) for turn in range(turns)), (measuring.TURNS, measuring.TURNS)]
    assert set(found) == set(measuring.SPEEDS.values())
    assert all(of[when] > 0 for of in found.values() for when in models)
