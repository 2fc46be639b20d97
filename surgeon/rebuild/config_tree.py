"""A config as a tree of leaves: read them, and make the config again with some of them changed.

A changed config is always made the way a saved one is loaded (``from_dict`` of ``to_dict``), so that
what is measured is what a reader of ``config.json`` gets: defaults derived anew, validators heard.
Not here: what a leaf means (`config_probe`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import transformers
from transformers import PreTrainedConfig

from surgeon.errors import RebuildError

__all__ = [
    "Path",
    "entry",
    "keyed_beside",
    "lacking",
    "leaves",
    "list_sizes",
    "lists_beside",
    "numbered_beside",
    "path_text",
    "quiet",
    "resize_depth",
    "sought_names",
    "vary",
]

Path = tuple[str | int, ...]
"""Where a leaf lies: keys of nested mappings, and places in lists."""


def path_text(path: Path) -> str:
    """``('text_config', 'widths', 3)`` as ``text_config.widths[3]``."""
    words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return words.removeprefix(".")


def leaves(config: PreTrainedConfig) -> dict[Path, object]:
    """Every number, flag, word and None of the config, nested configs and lists included."""
    found: dict[Path, object] = {}
    pending: list[tuple[Path, object]] = [((), config.to_dict())]
    while pending:
        path, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [
                ((*path, key), part) for key, part in reversed(list(value.items())) if isinstance(key, str)
            ]
        elif isinstance(value, list):
            pending += [((*path, place), part) for place, part in reversed(list(enumerate(value)))]
        else:
            found[path] = value
    return found


def list_sizes(config: PreTrainedConfig) -> dict[Path, int]:
    """How many entries every list in the config has; of nothing but empty ones nothing is said."""
    found: dict[Path, int] = {}
    for path in leaves(config):
        for place, step in enumerate(path):
            if isinstance(step, int):
                found[path[:place]] = max(step + 1, found.get(path[:place], 0))
    return found


def vary(config: PreTrainedConfig, changes: Mapping[Path, object]) -> PreTrainedConfig:
    """A new config of the same class with the leaves at the given paths changed.

    Raises:
        RebuildError: the config's own validators refuse the values; the message is theirs.
    """
    fields = config.to_dict()
    for path, value in changes.items():
        _holder(fields, path)[path[-1]] = value
    return _from_fields(config, fields)


def entry(config: PreTrainedConfig, path: Path) -> object:
    """What lies at `path`, a leaf or a whole list or section; a KeyError where nothing does."""
    return _holder(config.to_dict(), path)[path[-1]]


def lists_beside(config: PreTrainedConfig, path: Path) -> tuple[Path, ...]:
    """Lists in the same section as the field at `path`, with as many entries as that field counts."""
    section = _holder(config.to_dict(), path)
    if not isinstance(section, Mapping):
        return ()
    count = _counted(section[path[-1]])
    found = (k for k, v in section.items() if isinstance(v, list) and len(v) == count and k != path[-1])
    return tuple((*path[:-1], key) for key in found)


def numbered_beside(config: PreTrainedConfig, path: Path) -> dict[Path, list[int]]:
    """Lists in the same section as the field at `path` of different numbers below what that field counts."""
    section = _holder(config.to_dict(), path)
    if not isinstance(section, Mapping):
        return {}
    count = _counted(section[path[-1]])
    return {
        (*path[:-1], key): value
        for key, value in section.items()
        if isinstance(value, list)
        and value
        and key != path[-1]
        and all(type(number) is int and 0 <= number < count for number in value)
        and len(set(value)) == len(value)
    }


def keyed_beside(config: PreTrainedConfig, path: Path) -> tuple[Path, ...]:
    """Mappings in the same section as the field at `path` whose keys are numbers below what it counts."""
    section = _holder(config.to_dict(), path)
    if not isinstance(section, Mapping):
        return ()
    count = _counted(section[path[-1]])
    return tuple(
        (*path[:-1], key)
        for key, value in section.items()
        if isinstance(value, Mapping) and value and all(_number(k) in range(count) for k in value)
    )


def resize_depth(
    config: PreTrainedConfig,
    path: Path,
    keep: Sequence[int],
    lists: Sequence[Path],
    members: Sequence[Path] = (),
    keyed: Sequence[Path] = (),
    firsts: Sequence[Path] = (),
    lasts: Sequence[Path] = (),
) -> PreTrainedConfig:
    """A new config whose depth, the field at `path`, counts only the blocks `keep`.

    That field is a number, or a list with one entry per block. The lists at the paths `lists`, which have
    one entry per block, keep the entries of those blocks; those at `members`, which list blocks by number,
    get their new numbers, and so do the keys of the mappings at `keyed`; the numbers at `firsts`, of first
    blocks, and at `lasts` count those of them that stay.

    Raises:
        RebuildError: the config's own validators refuse the result.
    """
    fields = config.to_dict()
    section = _holder(fields, path)
    for *_, key in keyed:
        entries = {_number(k): (k, value) for k, value in section[key].items()}
        section[key] = {
            type(entries[block][0])(place): copy.deepcopy(entries[block][1])
            for place, block in enumerate(keep)
            if block in entries
        }
    for *_, key in firsts:
        section[key] = sum(block < section[key] for block in keep)
    blocks = _counted(section[path[-1]])
    for *_, key in lasts:
        section[key] = sum(block >= blocks - section[key] for block in keep)
    by_entries = isinstance(section[path[-1]], list)
    for *_, key in (*lists, path) if by_entries else lists:
        section[key] = [section[key][block] for block in keep]
    if not by_entries:
        section[path[-1]] = len(keep)
    for *_, key in members:
        section[key] = [place for place, block in enumerate(keep) if block in section[key]]
    return _from_fields(config, fields)


def lacking(config: PreTrainedConfig, sought: Iterable[tuple[type, str]]) -> tuple[Path, ...]:
    """Where the names in `sought` would lie: in the config, or in the nested ones of the given class."""
    nested = ((key, getattr(config, key, None)) for key in config.sub_configs)
    sections = [((), config), *(((key,), part) for key, part in nested if part is not None)]
    return tuple((*path, name) for path, part in sections for kind, name in sought if type(part) is kind)


@contextmanager
def sought_names() -> Iterator[set[tuple[type, str]]]:
    """Names that anything asks of a config meanwhile and that it lacks, with the config's class.

    Model code reads some fields only where they are set (``getattr(config, "...", default)``); no
    config class declares them, so this is the one way to learn of them.
    """
    found: set[tuple[type, str]] = set()

    def note(config: PreTrainedConfig, name: str) -> object:
        if not name.startswith("_"):
            found.add((type(config), name))
        raise AttributeError(f"{type(config).__name__} has no attribute '{name}'")

    before = vars(PreTrainedConfig).get("__getattr__")
    if before is not None:  # whatever transformers does there itself, nothing is learned behind it
        yield found
        return
    setattr(PreTrainedConfig, "__getattr__", note)  # noqa: B010 -- no such attribute is declared
    try:
        yield found
    finally:
        delattr(PreTrainedConfig, "__getattr__")


@contextmanager
def quiet() -> Iterator[None]:
    """Neither log lines nor warnings about configs that are only made to be looked at."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)


def _counted(value: int | list[Any]) -> int:
    """What a field counts: its value, or its entries."""
    return len(value) if isinstance(value, list) else value


def _number(key: object) -> int | None:
    """A key that is a number, or its text as JSON has it."""
    if isinstance(key, str):
        return int(key) if key.isdigit() else None
    return key if type(key) is int else None


def _holder(fields: Any, path: Path) -> Any:
    """The innermost mapping or list that holds the last step of `path`."""
    for step in path[:-1]:
        fields = fields[step]
    return fields


def _from_fields(config: PreTrainedConfig, fields: dict) -> PreTrainedConfig:
    try:
        with quiet():
            return type(config).from_dict(fields, attn_implementation=config._attn_implementation)
    except Exception as error:  # a config class may raise anything: its validators are foreign code
        raise RebuildError(f"{type(config).__name__} refuses: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
