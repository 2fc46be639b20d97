"""Median wall-clock time of what a call does, on whatever device it runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["LONG", "median_seconds_each"]

T = TypeVar("T")

LONG = 2.0
"""Seconds of timed calls after which there are no more: of so long ones few tell as much."""


def median_seconds_each(
    prepare: Callable[[], T], call: Callable[[T], int], device: torch.device, repeats: int = 3
) -> float:
    """Median over `repeats` calls, or fewer long ones, of the time for each thing done, after one to warm up.

    Args:
        prepare: runs before each call, untimed.
        call: does a number of things, which it returns.
        device: where they are done.
        repeats: how many calls.
    """
    call(prepare())
    times: list[float] = []
    each: list[float] = []
    while len(times) < repeats and sum(times) < LONG:
        prepared = prepare()
        _wait(device)
        start = time.perf_counter()
        done = call(prepared)
        _wait(device)
        times.append(time.perf_counter() - start)
        each.append(times[-1] / done)
    return statistics.median(each)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
