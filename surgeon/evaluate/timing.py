"""Median wall-clock time of a call, on whatever device it runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["median_seconds"]

T = TypeVar("T")

LONG = 5.0
"""Seconds of timed calls after which there are no more: of so long ones few tell as much."""


def median_seconds(
    prepare: Callable[[], T], call: Callable[[T], object], device: torch.device, repeats: int = 3
) -> float:
    """Median time of `repeats` calls, or fewer long ones, after one that warms up.

    `prepare` runs before each, untimed.
    """
    call(prepare())
    times: list[float] = []
    while len(times) < repeats and sum(times) < LONG:
        prepared = prepare()
        _wait(device)
        start = time.perf_counter()
        call(prepared)
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
