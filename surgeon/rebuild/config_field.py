"""Field: one config field, and what follows it when it changes.

Not here: which changes are tried (`config_probe`, `config_linked`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedConfig

from surgeon.errors import RebuildError
from surgeon.rebuild.config_tree import Path, path_text, vary
from surgeon.rebuild.signature import Number, Signature, measure

__all__ = ["Dim", "Field", "field_of", "measure_or_error"]

Dim = tuple[str, int]
"""A parameter and one of its dims."""


@dataclass(frozen=True)
class Field:
    """One config field and what follows it.

    Attributes:
        path: where it lies.
        value: its value now.
        stands_for: the number that it acts as; for a None the default that the model derives, or
            None where that cannot be told.
        dims: tensor dims whose size changes with it.
        tensors: tensors that come or go with it.
        numbers: plain numbers of modules that change with it (those that come or go are left out).
    """

    path: Path
    value: object
    stands_for: int | float | None
    dims: frozenset[Dim]
    tensors: frozenset[str]
    numbers: frozenset[Number]

    @property
    def name(self) -> str:
        """The field as a person writes it."""
        return path_text(self.path)

    @property
    def implicit(self) -> bool:
        """Whether the value is derived from other fields as long as nobody sets it."""
        return self.value is None

    @property
    def bare(self) -> bool:
        """Whether it reaches no tensor, only numbers (a count of heads of a fixed total width)."""
        return not (self.dims or self.tensors)


def field_of(
    base: Signature, other: Signature, path: Path, value: object, number: int | float | None
) -> Field | None:
    """What differs between two Signatures as what follows the field at `path`; None where nothing does."""
    dims: set[Dim] = set()
    tensors = set(base.shapes) ^ set(other.shapes)
    for name in set(base.shapes) & set(other.shapes):
        before, after = base.shapes[name], other.shapes[name]
        if len(before) != len(after):
            tensors.add(name)
        else:
            dims |= {(name, dim) for dim, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    common = base.numbers.keys() & other.numbers.keys()
    numbers = {key for key in common if base.numbers[key] != other.numbers[key]}
    tensors |= {
        name for name in base.ties.keys() | other.ties.keys() if base.ties.get(name) != other.ties.get(name)
    }
    if not (dims or tensors or numbers):
        return None
    return Field(path, value, number, frozenset(dims), frozenset(tensors), frozenset(numbers))


def measure_or_error(config: PreTrainedConfig, changes: Mapping[Path, object]) -> Signature | RebuildError:
    """Signature of what `config` builds with these leaves changed, or why it builds nothing."""
    try:
        return measure(vary(config, changes))
    except RebuildError as error:
        return error
