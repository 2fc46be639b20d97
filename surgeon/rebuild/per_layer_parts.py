"""What else changes in a block when its tensors narrow: attributes of modules, fields that they read.

Three measured sources, no table. An attribute that equals one dim of its own module's tensors wherever
the class occurs follows that dim (``out_features``). An attribute that some config field moves, and a
field that reaches the block's cut dims, gets a value that the planned Axis sizes explain (``num_heads``).
Where they allow several, the narrowed block is run and what does not run is left out (`per_layer_trial`).
Not here: the proof that the result computes the same (`surgeon.rebuild.verify`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from surgeon.rebuild.config_judge import expected_values
from surgeon.rebuild.config_probe import ConfigSpace, Field
from surgeon.rebuild.config_target import Width
from surgeon.rebuild.config_tree import leaves
from surgeon.rebuild.per_layer_absent import absent_rows
from surgeon.rebuild.per_layer_attributes import followed, own_numbers, own_tensors, shape_attributes
from surgeon.rebuild.per_layer_trial import Choice, Row, first_that_runs, readers
from surgeon.rebuild.signature import Shape
from surgeon.rebuild.skeleton import skeleton

__all__ = ["BlockParts", "Narrowing", "parts_of"]


@dataclass(frozen=True)
class Narrowing:
    """One block to be narrowed, as the shallow model shows it.

    Attributes:
        block: its module path in the shallow model; empty for the whole of it.
        shapes: planned shapes of its tensors that change, by name below the block.
        widths: for each of its tensors, by name below the block, the Axes in it with their kept sizes.
        absent: paths below the block of modules that are taken out.
    """

    block: str
    shapes: Mapping[str, Shape]
    widths: Mapping[str, tuple[Width, ...]]
    absent: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """How the names of what lies in it begin."""
        return f"{self.block}." if self.block else ""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for blocks that narrow alike."""
        kept = tuple(sorted((name, tuple(map(str, held))) for name, held in self.widths.items()))
        return self.block, tuple(sorted(self.shapes.items())), kept, self.absent


@dataclass(frozen=True)
class BlockParts:
    """What changes in one block.

    Attributes:
        rows: by module path below the block.
        fields: config fields that may differ here, with their values.
        usual: the number that each of these stands for in the whole model.
        readers: paths below the block of modules that keep the model's config.
    """

    rows: Mapping[str, Row]
    fields: Mapping[str, int]
    usual: Mapping[str, int]
    readers: tuple[str, ...]


def parts_of(space: ConfigSpace, config: PreTrainedConfig, narrowing: Narrowing) -> BlockParts:
    """What changes in one block.

    Args:
        space: what was measured of the original's config.
        config: the shallow config that gives everything but the block's own widths.
        narrowing: the block and its planned shapes.

    Raises:
        InfeasibleError: no values were found with which the narrowed block runs.
    """
    module = skeleton(config)
    own = module.get_submodule(narrowing.block)
    before = {name: tuple(t.shape) for name, t in _tensors(own).items()}
    rows: dict[str, Row] = absent_rows(module, narrowing.block, narrowing.absent)
    for name, shape in narrowing.shapes.items():
        path, _, leaf = name.rpartition(".")
        rows.setdefault(path, {})[leaf] = list(shape)
        for attribute in shape_attributes(own.get_submodule(path), leaf):
            rows[path][attribute] = list(shape)
    choices = list(_choices(space, config, module, narrowing, before))
    choices = choices if narrowing.block else _alike(own, choices)
    axes = {name: [(width.old, width.new) for width in held] for name, held in narrowing.widths.items()}
    chosen, reshaping = first_that_runs(module, narrowing.block, rows, choices, axes)
    for path, widths in reshaping.items():
        rows.setdefault(path, {})["reshapes"] = [list(pair) for pair in widths]
    fields: dict[str, int] = {}
    for choice, value in zip(choices, chosen, strict=True):
        if not choice.paths:
            fields[choice.name] = value
        for path in choice.paths if value != choice.old else ():
            rows.setdefault(path, {})[choice.name] = value
    usual = {choice.name: choice.old for choice in choices if not choice.paths}
    read_by = tuple(path for path in readers(module, own) if not _within(path, narrowing.absent))
    return BlockParts(rows, fields, usual, read_by)


def _choices(
    space: ConfigSpace,
    config: PreTrainedConfig,
    module: PreTrainedModel,
    narrowing: Narrowing,
    before: Mapping[str, Shape],
) -> Iterator[Choice]:
    """Every number that may change, the values that make sense for it, the most plausible first."""
    own = module.get_submodule(narrowing.block)
    planned = {**before, **narrowing.shapes}
    relevant = _relevant(space, narrowing, before)
    moved = {number for f in relevant for number in f.numbers}
    apart = [f for f in relevant if _alone(f, space, relevant)]
    alone = {number for f in apart for number in f.numbers}
    for path, part in own.named_modules():
        if _within(path, narrowing.absent):
            continue
        full = f"{narrowing.head}{path}" if path else narrowing.block
        shapes = {n: planned[f"{path}.{n}" if path else n] for n in own_tensors(part)}
        held = followed(part, full, module, shapes, space)
        for name, new in held.items():
            yield Choice((path,), name, vars(part)[name], new)
        for name, old in own_numbers(part):
            if name not in held and (full, name) in moved:
                values = _explained(old, [path], narrowing, before)
                yield Choice((path,), name, old, _old_first(old, values) if (full, name) in alone else values)
    now = leaves(config)
    for f in relevant:
        value = now.get(f.path)
        old = f.stands_for if value is None else value
        if len(f.path) == 1 and type(old) is int:
            values = _held(old, f, narrowing, before)
            yield Choice((), str(f.path[0]), old, _old_first(old, values) if f in apart else values)


def _alike(own: nn.Module, choices: Sequence[Choice]) -> list[Choice]:
    """Choices for one attribute of modules of one class, with the same values, as one."""
    sets: dict[tuple[object, ...], list[Choice]] = {}
    for choice in choices:
        owners = {type(own.get_submodule(path)) for path in choice.paths}
        sets.setdefault((*owners, choice.name, choice.old, choice.values), []).append(choice)
    return [
        found[0]._replace(paths=tuple(path for choice in found for path in choice.paths))
        for found in sets.values()
    ]


def _alone(f: Field, space: ConfigSpace, relevant: Sequence[Field]) -> bool:
    """Whether only numbers of its own follow the field, and another of the same size counts what is cut.

    Such as a window of as many tokens as there are heads.
    """
    own = not f.dims and all(space.shallow.base.numbers.get(number) == f.stands_for for number in f.numbers)
    return own and any(other.dims and other.stands_for == f.stands_for for other in relevant)


def _old_first(old: int, values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys((old, *values)))


def _relevant(space: ConfigSpace, narrowing: Narrowing, before: Mapping[str, Shape]) -> list[Field]:
    """Number fields that move a cut dim of the block, or a number in it."""
    cut = {
        (f"{narrowing.head}{name}", dim)
        for name, shape in narrowing.shapes.items()
        for dim, size in enumerate(shape)
        if size != before[name][dim]
    }
    inside = (narrowing.block, narrowing.head)
    return [
        f
        for f in space.fields
        if type(f.stands_for) is int
        and (f.dims & cut or any(path == inside[0] or path.startswith(inside[1]) for path, _ in f.numbers))
    ]


def _held(old: int, f: Field, narrowing: Narrowing, before: Mapping[str, Shape]) -> tuple[int, ...]:
    """What a field may become: where it moves dims, by the Axes that lie in every one of them."""
    head = narrowing.head
    moved = {(name.removeprefix(head), dim) for name, dim in f.dims if name.startswith(head)}
    if not moved:
        paths = [path.removeprefix(head) for path, _ in f.numbers if path.startswith(head)]
        return _explained(old, paths or [""], narrowing, before)
    lies: dict[tuple[str, int, int], set[tuple[str, int]]] = {}
    for width in itertools.chain.from_iterable(narrowing.widths.values()):
        lies.setdefault((width.kind, width.old, width.new), set()).update(width.dims)
    every = itertools.chain.from_iterable(narrowing.widths.values())
    found = set(expected_values(old, [w for w in every if moved <= lies[w.kind, w.old, w.new]]))
    for name, dim in moved:
        if before[name][dim] == old:
            found.add(narrowing.shapes.get(name, before[name])[dim])
    first = [old] if old in found or not found else []
    return tuple(dict.fromkeys((*first, *sorted(found, reverse=True), old)))


def _explained(
    old: int, paths: Sequence[str], narrowing: Narrowing, before: Mapping[str, Shape]
) -> tuple[int, ...]:
    """What a number at these paths may become, by the sizes of the Axes and tensors near them.

    The number itself comes first where the planned sizes explain it as well, else last.
    """
    near = {name for path in paths for name in _near(path, before)}
    widths = [width for name in near for width in narrowing.widths.get(name, ())]
    found = set(expected_values(old, widths))
    for name in near:
        pairs = zip(before[name], narrowing.shapes.get(name, before[name]), strict=True)
        found |= {new for size, new in pairs if size == old}
    first = [old] if old in found or not found else []
    return tuple(dict.fromkeys((*first, *sorted(found, reverse=True), old)))


def _within(path: str, outer: Iterable[str]) -> bool:
    return any(f"{path}.".startswith(f"{one}.") for one in outer)


def _near(path: str, names: Iterable[str]) -> list[str]:
    """Tensors at or below a path; where there are none, those below the nearest module above it."""
    known = list(names)
    while path:
        found = [name for name in known if name == path or name.startswith(f"{path}.")]
        if found:
            return found
        path = path.rpartition(".")[0]
    return known


def _tensors(own: nn.Module) -> dict[str, Tensor]:
    return dict(own.named_parameters(remove_duplicate=False)) | dict(
        own.named_buffers(remove_duplicate=False)
    )
