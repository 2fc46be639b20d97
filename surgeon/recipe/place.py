"""Where in which file each part of a recipe was written, so that errors can point at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["KeyPath", "Place", "Places", "dotted"]

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of a recipe down, as in ``("steps", 0, "keep")``."""


def dotted(path: KeyPath) -> str:
    """The path as a person writes it: ``steps.0.keep``."""
    return ".".join(map(str, path))


class Place(NamedTuple):
    """A position in a file, lines and columns from 1; or only the name of where a value came from."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Places:
    """For every part of a recipe the place of its key and of its value.

    Any two are equal: where something is written makes no difference to what it says.
    """

    keys: dict[KeyPath, Place] = field(default_factory=dict, compare=False)
    values: dict[KeyPath, Place] = field(default_factory=dict, compare=False)

    def key(self, path: KeyPath) -> Place | None:
        """Where the key at `path` stands, or the nearest thing around it."""
        return next((self.keys[near] for near in _upwards(path) if near in self.keys), None)

    def value(self, path: KeyPath) -> Place | None:
        """Where the value at `path` stands, or the nearest thing around it."""
        return next((self.values[near] for near in _upwards(path) if near in self.values), None)

    def without(self, path: KeyPath) -> Places:
        """What is left when the part at `path` is replaced."""
        return Places(_outside(path, self.keys), _outside(path, self.values))

    def over(self, other: Places) -> Places:
        """These places, and those of `other` for what is not here."""
        return Places({**other.keys, **self.keys}, {**other.values, **self.values})


def _outside(path: KeyPath, table: dict[KeyPath, Place]) -> dict[KeyPath, Place]:
    return {other: place for other, place in table.items() if other[: len(path)] != path}


def _upwards(path: KeyPath) -> Iterator[KeyPath]:
    return (path[:length] for length in range(len(path), -1, -1))
