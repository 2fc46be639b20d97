"""Lanes: an axis that forward takes apart index by index, treats alike, and puts together again.

``cat([f(x[i], w[i]) for i in range(n)])`` is a map over an axis of ``n`` indices, not ``n`` named parts:
permuting them permutes the pieces. It is one if every piece comes about by the same ops in the same way,
index ``i`` of what is picked apart going into piece ``i``, and nothing on the way is read elsewhere. Pieces
of positions may be as long as an axis counts them (``x.split(counts.tolist())``): index ``i`` of what was
counted goes into piece ``i``. Found from the Events alone, before they are propagated. Not here: what a pick
outside of a map means (`segments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from surgeon.trace.record import Event, Recorder, Value

__all__ = ["Lanes", "find_lanes"]

_JOINS = frozenset({"stack", "cat"})
_PICKS = frozenset({"select", "unbind"})
Source = tuple[int, int]
"""A value's number, and the dim that is taken apart."""


@dataclass(frozen=True)
class Lanes:
    """By the index of the joining event, what was taken apart; and every event that picks a lane's part.

    `counts` are the values whose numbers say how long pieces are.
    """

    joins: Mapping[int, tuple[Source, ...]]
    picks: frozenset[int]
    counts: frozenset[int] = frozenset()

    def ragged(self, join: int) -> bool:
        """Whether the pieces of a join are as long as an axis counts them."""
        return any(number in self.counts for number, _ in self.joins.get(join, ()))


def find_lanes(recorder: Recorder) -> Lanes:
    """Every map over an axis in a recording."""
    events = recorder.events
    joins = [event for event in events if event.name in _JOINS and len(event.args[0]) > 1]
    if not joins or not any(event.name in _PICKS for event in events):
        return Lanes({}, frozenset())
    history = _History(recorder)
    found: dict[int, tuple[Source, ...]] = {}
    picks: set[int] = set()
    for event in joins:
        walk = _Walk(history, event)
        if walk.is_map():
            found[event.index] = tuple(sorted(walk.sources))
            picks |= walk.picks
    counted = frozenset(number for sources in found.values() for number, _ in sources) & history.listed
    return Lanes(found, frozenset(picks), counted)


class _History:
    """Who wrote each value, as which output, and who reads it; no writer where there were several."""

    def __init__(self, recorder: Recorder) -> None:
        self.tensors = recorder.tensors
        self.listed: set[int] = set()
        self._counts: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self.writers: dict[int, tuple[Event, int] | None] = {}
        self.readers: dict[int, set[int]] = {}
        for event in recorder.events:
            if event.name == "tolist":
                self._note(event.index, event.inputs[0])
            for place, value in enumerate(event.outputs):
                self.writers[value.id] = None if value.id in self.writers else (event, place)
            for value in event.inputs:
                self.readers.setdefault(value.id, set()).add(event.index)

    def _note(self, index: int, value: Value) -> None:
        """A list of whole numbers that leaves for Python may come back as lengths of pieces."""
        tensor = self.tensors[value.id]
        if tensor.dim() == 1 and not isinstance(tensor, FakeTensor) and tensor.dtype == torch.int64:
            self._counts.setdefault(tuple(tensor.tolist()), []).append((index, value.id))
            self.listed.add(value.id)

    def _counted_for(self, event: Event) -> int | None:
        """The value whose numbers, the last ones listed before, are the lengths that a split makes."""
        if event.name != "split_with_sizes":
            return None
        listed = self._counts.get(tuple(event.args[1]), [])
        return next((value for index, value in reversed(listed) if index < event.index), None)

    def picked(self, value: Value) -> tuple[Source, int, int] | None:
        """What `value` is one index of, which one, and of how many; None where it is no pick."""
        event, place = self.writers[value.id] or (None, 0)
        counts = None if event is None else self._counted_for(event)
        if event is not None and counts is not None:
            return (counts, 0), place, len(event.args[1])
        if event is None or event.name not in _PICKS:
            return None
        shape = self.tensors[event.args[0].id].shape
        rest = (*event.args[1:], *event.kwargs.values())
        dim = rest[0] % len(shape) if rest else 0
        index = rest[1] % shape[dim] if event.name == "select" else place
        return (event.args[0].id, dim), index, shape[dim]


class _Walk:
    """The pieces that `join` puts together, followed back side by side to where they were picked."""

    def __init__(self, history: _History, join: Event) -> None:
        self.history = history
        self.pieces: tuple[Value, ...] = join.args[0]
        self.sources: set[Source] = set()
        self.picks: set[int] = set()
        self._events = [{join.index} for _ in self.pieces]
        self._values: list[set[int]] = [set() for _ in self.pieces]

    def is_map(self) -> bool:
        """Whether every piece is made alike, of its own index, for its own piece alone."""
        for lane in range(1, len(self.pieces)):
            sources = self._alike(lane)
            if not sources or (lane > 1 and sources != self.sources):
                return False
            self.sources = sources
        return all(
            self.history.readers.get(value, set()) <= events
            for values, events in zip(self._values, self._events, strict=True)
            for value in values
        )

    def _alike(self, lane: int) -> set[Source]:
        """What piece 0 and piece `lane` were picked from; nothing where they are not made alike."""
        waiting, seen = [(self.pieces[0], self.pieces[lane])], set()
        sources: set[Source] = set()
        while waiting:
            pair = waiting.pop()
            if pair in seen or pair[0] == pair[1]:
                continue
            seen.add(pair)
            left, right = (self.history.writers.get(value.id) for value in pair)
            if left is None or right is None or left[0].func != right[0].func:
                return set()
            (one, first), (two, second) = left, right
            for value, event, which in zip(pair, (one, two), (0, lane), strict=True):
                self._values[which].add(value.id)
                self._events[which].add(event.index)
            source = self._own_indices(pair, lane)
            if source is not None:
                sources.add(source)
                self.picks |= {one.index, two.index}
                continue
            pairs = _paired((first, one.args, one.kwargs), (second, two.args, two.kwargs))
            if pairs is None:
                return set()
            waiting.extend(pairs)
        return sources

    def _own_indices(self, pair: tuple[Value, Value], lane: int) -> Source | None:
        """What both values were picked from, where piece 0 got index 0, and piece `lane` its own."""
        first, other = (self.history.picked(value) for value in pair)
        if first is None or other is None or first[0] != other[0]:
            return None
        return first[0] if (first[1], other[1], first[2]) == (0, lane, len(self.pieces)) else None


def _paired(one: Any, two: Any) -> list[tuple[Value, Value]] | None:
    """The tensors at the same places of two nested arguments, or None where these differ otherwise."""
    if isinstance(one, Value) and isinstance(two, Value):
        return [(one, two)]
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return _paired(tuple(sorted(one.items())), tuple(sorted(two.items())))
    if not (isinstance(one, tuple) and isinstance(two, tuple)):
        return [] if type(one) is type(two) and one == two else None
    if len(one) != len(two):
        return None
    inner = [_paired(left, right) for left, right in zip(one, two, strict=True)]
    return None if None in inner else [pair for pairs in inner if pairs for pair in pairs]
