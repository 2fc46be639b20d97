"""What each config field moves, measured: change it, build on meta, compare.

No table of field names: a field holds a width when another value changes dims of tensors. Probed are
numbers and lists of numbers; fields that are None, or that no class declares but model code reads,
with the number that they stand for (None may mean four times another field); and flags, for the
tensors that they add or remove. Not here: finding values for planned shapes (`config_solve`), counting
blocks (`config_counted`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from transformers import PreTrainedConfig

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.rebuild.config_counted import find_depths
from surgeon.rebuild.config_depth import Depth, Shallow, shallow_copy
from surgeon.rebuild.config_field import Dim, Field, field_of, measure_or_error
from surgeon.rebuild.config_linked import linked_fields
from surgeon.rebuild.config_tree import Path, lacking, leaves, sought_names, vary
from surgeon.rebuild.signature import Signature, measure

__all__ = ["ConfigSpace", "Dim", "Field", "probe"]


@dataclass(frozen=True, eq=False)
class ConfigSpace:
    """A config, its fields, and what they move. `measure` answers for changed fields, cached.

    Attributes:
        config: the whole config.
        shallow: the copy on which widths are measured.
        fields: those that move something.
        depths: the fields that count blocks.
    """

    config: PreTrainedConfig
    shallow: Shallow
    fields: tuple[Field, ...]
    depths: tuple[Depth, ...]
    _measured: dict[frozenset, Signature | RebuildError] = field(default_factory=dict, repr=False)

    def measure(self, changes: Mapping[Path, object]) -> Signature:
        """Signature of the shallow model with these fields changed.

        Raises:
            RebuildError: config or model refuse the values.
        """
        key = frozenset(changes.items())
        if key not in self._measured:
            self._measured[key] = measure_or_error(self.shallow.config, changes)
        found = self._measured[key]
        if isinstance(found, RebuildError):
            raise found
        return found

    @cached_property
    def computed(self) -> Signature:
        """Signature of the shallow model with the values of what it computes from its config."""
        return measure(self.shallow.config, values=True)

    def configured(self, changes: Mapping[Path, object]) -> PreTrainedConfig:
        """The shallow config with these fields changed; a RebuildError where it refuses them."""
        return vary(self.shallow.config, changes)

    def movers(self, dims: Iterable[Dim]) -> tuple[Field, ...]:
        """Fields that move any of these dims of the shallow model."""
        wanted = frozenset(dims)
        return tuple(f for f in self.fields if f.dims & wanted)


def probe(config: PreTrainedConfig, graph: Graph) -> ConfigSpace:
    """Measure what every field of `config` moves in the model that `graph` was traced from.

    Raises:
        RebuildError: the config does not build the traced model, all differing tensors listed.
    """
    _check_same_model(config, graph)
    depths = find_depths(config, graph)
    shallow = shallow_copy(config, graph, depths)
    fields = _probe_fields(shallow, depths)
    if shallow.stands_for and any(isinstance(f.path[-1], int) and f.dims for f in fields):
        shallow = Shallow(config, measure(config), {})  # a list gives each block its own widths
        fields = _probe_fields(shallow, depths)
    return ConfigSpace(config, shallow, fields, depths)


def _check_same_model(config: PreTrainedConfig, graph: Graph) -> None:
    built = measure(vary(config, {})).shapes
    traced = {name: p.shape for name, p in graph.parameters.items()}
    faults = [
        f"  {name}: traced {traced.get(name, 'absent')}, config builds {built.get(name, 'absent')}"
        for name in sorted(traced.keys() | built.keys())
        if traced.get(name) != built.get(name)
    ]
    if faults:
        raise RebuildError(
            "the config does not build the traced model:\n" + "\n".join(faults),
            hint="trace the model from the same config.json that is probed",
        )


def _probe_fields(shallow: Shallow, depths: tuple[Depth, ...]) -> tuple[Field, ...]:
    counting = {depth.path for depth in depths}
    values = {path: v for path, v in leaves(shallow.config).items() if path not in counting}
    known: list[Field] = []
    refused: dict[Path, int] = {}
    for path, value in values.items():
        tried = _probe_value(shallow, path, value)
        if isinstance(tried, Field):
            known.append(tried)
        elif isinstance(tried, RebuildError) and type(value) is int and value > 1:
            refused[path] = value
    known += linked_fields(shallow, refused)
    widths = sorted({int(f.value) for f in known if f.dims and type(f.value) is int and f.value > 0})
    with sought_names() as sought:
        measure(shallow.config)
    unset = (*(path for path, value in values.items() if value is None), *lacking(shallow.config, sought))
    for path in unset:
        if (f := _probe_unset(shallow, path, widths)) is not None:
            known.append(f)
    return tuple(known)


def _probe_value(shallow: Shallow, path: Path, value: object) -> Field | RebuildError | None:
    """The Field at `path`, None where another value moves nothing, or why none is accepted."""
    if isinstance(value, bool):
        tries, number = (not value,), None
    elif isinstance(value, int | float):
        tries, number = tuple(_other_numbers(value)), value
    else:
        return None
    signature: Signature | RebuildError | None = None
    for other in tries:
        signature = measure_or_error(shallow.config, {path: other})
        if isinstance(signature, Signature):
            return field_of(shallow.base, signature, path, value, number)
    return signature


def _other_numbers(value: int | float) -> Iterator[int | float]:
    """Numbers to try in the place of `value`, those most likely accepted first."""
    if isinstance(value, float):
        yield from (value / 2, value * 2)
    elif value > 0:
        yield from (v for v in (value * 2, value // 2, value + 1, value - 1) if v not in (0, value))
    else:
        yield value + 1


def _probe_unset(shallow: Shallow, path: Path, widths: Sequence[int]) -> Field | None:
    """The Field of a None, or of a name that model code reads where it is set.

    A number in its place moves something, unless it is the very number that it stands for; so two
    that are accepted and move nothing are enough to leave it.
    """
    accepted = 0
    for number in widths:
        signature = measure_or_error(shallow.config, {path: number})
        if not isinstance(signature, Signature):
            continue
        found = field_of(shallow.base, signature, path, None, None)
        if found is not None:
            default = _default(shallow, found, number, signature)
            return Field(path, None, default, found.dims, found.tensors, found.numbers)
        accepted += 1
        if accepted > 1:
            break
    return None


def _default(shallow: Shallow, found: Field, number: int, signature: Signature) -> int | float | None:
    """The number that builds the same model as None does, inferred from how `number` moved it."""
    sizes = [
        (shallow.base.shapes[name][dim], signature.shapes[name][dim]) for name, dim in sorted(found.dims)
    ]
    guesses = [Fraction(number * before, after) for before, after in sizes if after]
    guesses = [int(g) for g in dict.fromkeys(guesses) if g.denominator == 1]
    guesses += [shallow.base.numbers[key] for key in sorted(found.numbers) if key in shallow.base.numbers]
    for guess in dict.fromkeys(guesses):
        if measure_or_error(shallow.config, {found.path: guess}) == shallow.base:
            return guess
    return None
