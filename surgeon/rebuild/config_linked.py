"""Fields that a config's validators link: no other value of one is accepted as long as the rest stays.

``hidden * expand == heads * head_dim`` lets nobody double the heads alone. So fields that refuse every
other value are changed in pairs, one up and one down or both the same way, and what moves is put down
to both. Not here: fields that move alone (`config_probe`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from surgeon.rebuild.config_depth import Shallow
from surgeon.rebuild.config_field import Field, field_of, measure_or_error
from surgeon.rebuild.config_tree import Path
from surgeon.rebuild.signature import Signature

__all__ = ["linked_fields"]


def linked_fields(shallow: Shallow, refused: Mapping[Path, int]) -> tuple[Field, ...]:
    """The Fields among `refused` (values by path) that move something when two of them change."""
    found: dict[Path, Field] = {}
    for one, other in itertools.combinations(refused, 2):
        for changes in _pairs(one, refused[one], other, refused[other]):
            signature = measure_or_error(shallow.config, changes)
            if isinstance(signature, Signature):
                for path in (one, other):
                    moved = field_of(shallow.base, signature, path, refused[path], refused[path])
                    if moved is not None:
                        found[path] = _joined(found.get(path), moved)
                break
    return tuple(found.values())


def _pairs(one: Path, value: int, other: Path, number: int) -> Iterator[dict[Path, int]]:
    """Changes that keep the product of two fields, then such that keep their ratio."""
    if number % 2 == 0:
        yield {one: value * 2, other: number // 2}
    if value % 2 == 0:
        yield {one: value // 2, other: number * 2}
    yield {one: value * 2, other: number * 2}
    if value % 2 == 0 and number % 2 == 0:
        yield {one: value // 2, other: number // 2}


def _joined(known: Field | None, more: Field) -> Field:
    if known is None:
        return more
    return Field(
        known.path,
        known.value,
        known.stands_for,
        known.dims | more.dims,
        known.tensors | more.tensors,
        known.numbers | more.numbers,
    )
