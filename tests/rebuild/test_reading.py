"""Tensors of one place after the other: in memory that is used again, those of the next by a thread."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from surgeon.rebuild.lazy import Stored
from surgeon.rebuild.reading import Reading
from surgeon.rebuild.unread import Unread

PLACES = "abcd"


class Shelf:
    """Two tensors a place; notes which are read, and waits where it is told to."""

    def __init__(self) -> None:
        self.read: list[tuple[str, int]] = []
        self.may = {place: threading.Event() for place in PLACES}
        for event in self.may.values():
            event.set()

    def describe(self, place: str) -> dict[str, Tensor]:
        def reads(dims: object) -> Tensor:
            assert self.may[place].wait(10)
            self.read.append((place, threading.get_ident()))
            return torch.full((3,), float(PLACES.index(place)))

        stored = Stored(place, (3,), torch.float32, reads)
        return {"read": Unread(stored), "there": torch.ones(2)}


def test_each_place_is_read_once_and_by_whom_it_is_asked():
    shelf = Shelf()
    reading = Reading(shelf.describe)
    for place in PLACES:
        found = reading.at(place, "a")
        assert found["read"].tolist() == [PLACES.index(place)] * 3
        assert found["there"].tolist() == [1, 1]
    assert shelf.read == [(place, threading.get_ident()) for place in PLACES]


def test_the_next_place_is_read_while_the_caller_goes_on():
    shelf = Shelf()
    reading = Reading(shelf.describe, ahead=True)
    shelf.may["b"].clear()
    reading.at("a", "b")  # comes back although b cannot be read yet
    assert [place for place, _ in shelf.read] == ["a"]
    shelf.may["b"].set()
    assert reading.at("b", "c")["read"].tolist() == [1, 1, 1]
    reading.close()
    assert [place for place, _ in shelf.read][:2] == ["a", "b"]  # whether c was begun is nobody's business
    assert threading.get_ident() not in {who for place, who in shelf.read if place != "a"}


def test_another_place_than_was_said_is_read_and_what_was_begun_is_still_had():
    shelf = Shelf()
    reading = Reading(shelf.describe, ahead=True)
    reading.at("a", "b")
    assert reading.at("a", "b")["read"].tolist() == [0, 0, 0]
    assert reading.at("b")["read"].tolist() == [1, 1, 1]
    assert reading.at("d")["read"].tolist() == [3, 3, 3]
    reading.close()
    assert sorted(place for place, _ in shelf.read) == ["a", "a", "b", "d"]
