"""Choices that say the same of several layers, put together: a step is a few rows and not hundreds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgeon.plan import Choice, StepRecord

__all__ = ["alike", "is_of_blocks", "named_together", "ranges"]


def alike(choices: Iterable[Choice]) -> list[tuple[Choice, ...]]:
    """Choices that differ in nothing but the layer, together, in the order in which each sort comes first."""
    rows: dict[tuple[object, ...], list[Choice]] = {}
    for choice in choices:
        sort = tuple(word for word in choice.axis.split(".") if not word.isdigit())
        rows.setdefault((sort, choice.size, choice.kept, choice.requested, choice.why), []).append(choice)
    return [tuple(row) for row in rows.values()]


def is_of_blocks(record: StepRecord) -> bool:
    """Whether the step's choices are of whole blocks or sublayers: each stays or goes."""
    return bool(record.choices) and all(choice.size == 1 for choice in record.choices)


def named_together(names: Sequence[str]) -> str:
    """One name for names that differ in a number only: ``layers.0-3,5.mlp.ffn``."""
    words = [name.split(".") for name in names]
    if len({len(word) for word in words}) == 1:
        places = [place for place, column in enumerate(zip(*words, strict=True)) if len(set(column)) > 1]
        if not places:
            return names[0]
        numbers = [word[places[0]] for word in words]
        if len(places) == 1 and all(number.isdigit() for number in numbers):
            first = words[0]
            return ".".join([*first[: places[0]], ranges(map(int, numbers)), *first[places[0] + 1 :]])
    return ", ".join(names)


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers, runs of at least three shortened: ``0-3,5``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
