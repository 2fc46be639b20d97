"""How often a call is timed: three times, and less often where each takes long."""

from __future__ import annotations

import itertools

import pytest
import torch

from surgeon.api import measuring
from surgeon.evaluate import timing
from surgeon.evaluate.decode_speed import DecodeSpeed


@pytest.mark.parametrize(("seconds", "calls"), [(0.5, 3), (1.5, 2), (60.0, 1)])
def test_long_calls_are_timed_less_often(monkeypatch, seconds, calls):
    clock = itertools.count(step=seconds)  # read before and after each call
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    made: list[int] = []

    def call(prepared: int) -> int:
        made.append(prepared)
        return 4

    taken = timing.median_seconds_each(lambda: 7, call, torch.device("cpu"))
    assert taken == seconds / 4
    assert made == [7] * (1 + calls)  # the first warms up


@pytest.mark.parametrize(("step", "tokens"), [(0.01, 16), (0.5, 5), (9.0, 1)])
def test_slow_tokens_are_fewer(monkeypatch, small_llama, step, tokens):
    """Each forward pass takes `step` seconds on this clock; the rate is right however many there are."""
    now, written, model = [0.0], [], small_llama()

    def passed(part, args, kwargs, output):
        now[0] += step
        written.append(kwargs["input_ids"].shape[1])

    model.register_forward_hook(passed, with_kwargs=True)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    ids = torch.randint(3, 53, (1, 24), generator=torch.Generator().manual_seed(0))
    assert DecodeSpeed().measure(model, ids) == pytest.approx(1 / step)
    assert written[: tokens + 2] == [16, *[1] * tokens, 16]


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
