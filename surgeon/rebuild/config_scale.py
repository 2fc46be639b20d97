"""Constants that a config computes from the depth, put right by the field that they are proportional to.

A residual scale of ``scale_depth / sqrt(num_hidden_layers)`` changes with every dropped block, and the
blocks that stay were trained with the old one. Where a number of the config moves exactly those constants
in proportion, it takes the factor. Not here: constants that no field moves (the check of the whole refuses).
"""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedConfig

from surgeon.rebuild.config_field import measure_or_error
from surgeon.rebuild.config_judge import same_number
from surgeon.rebuild.config_search import Changes
from surgeon.rebuild.config_tree import Path, leaves, vary
from surgeon.rebuild.signature import Number, Signature, measure

__all__ = ["rescaled"]

Numbers = Mapping[Number, int | float]


def rescaled(
    wanted: Signature, config: PreTrainedConfig, moved: Mapping[str, str]
) -> tuple[PreTrainedConfig, Changes]:
    """`config` with the fields changed that give modules the fractions that they had.

    Args:
        wanted: Signature of the whole original.
        config: the smaller model's config, its depth included.
        moved: new module path of every module that is left, by its old one.

    Returns:
        The config, and the new values of the fields.
    """
    built = measure(config)
    off = _off(wanted.numbers, built.numbers, moved)
    changes: dict[Path, object] = {}
    factor = next(iter(off.values()), 1.0)
    if not all(same_number(ratio, factor) for ratio in off.values()):
        return config, changes
    for path, value in leaves(config).items() if off else ():
        if type(value) is float and value:
            doubled = measure_or_error(config, {path: value * 2})
            if isinstance(doubled, Signature) and _doubles(built, doubled, off):
                changes[path] = value * factor
                break
    return (vary(config, changes), changes) if changes else (config, changes)


def _off(before: Numbers, after: Numbers, moved: Mapping[str, str]) -> dict[Number, float]:
    """Fractions of modules that differ, by new path, with the factor that puts them right."""
    found: dict[Number, float] = {}
    for (path, name), value in before.items():
        place = (moved.get(path, ""), name)
        now = after.get(place)
        if path in moved and isinstance(value, float) and now and not same_number(now, value):
            found[place] = value / now
    return found


def _doubles(built: Signature, doubled: Signature, off: Mapping[Number, float]) -> bool:
    differing = {key for key in built.numbers if doubled.numbers.get(key) != built.numbers[key]}
    return differing == set(off) and all(
        same_number(doubled.numbers[key], 2 * built.numbers[key]) for key in off
    )
