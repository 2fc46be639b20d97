"""Pace, against a clock that the test turns."""

import pytest

from surgeon.calibrate import pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def save(step: pace.Pace, clock: list[float], seconds: float) -> None:
    with step.saving():
        clock[0] += seconds


def test_a_quick_save_is_followed_by_the_interval(clock: list[float]) -> None:
    step = pace.Pace(20)
    assert not step.due()
    clock[0] += 20
    assert step.due()
    save(step, clock, 1)
    clock[0] += 19.9
    assert not step.due()
    clock[0] += 0.1
    assert step.due()


def test_a_long_save_is_followed_by_ten_times_its_length(clock: list[float]) -> None:
    step = pace.Pace(20)
    save(step, clock, 7)
    clock[0] += 7 * pace.SHARE - 0.1
    assert not step.due()
    clock[0] += 0.1
    assert step.due()


def test_a_failed_save_is_tried_again(clock: list[float]) -> None:
    step = pace.Pace(20)
    clock[0] += 20
    with pytest.raises(OSError, match="full"), step.saving():
        raise OSError("full")
    assert step.due()
