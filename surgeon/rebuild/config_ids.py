"""Ids of tokens that a config names, in the numbers of a vocabulary from which indices are removed.

A config says by their numbers which tokens stand for an image, end a sentence or fill a row; removing
others before them renumbers them. transformers' own convention tells such fields (``eos_token_id``,
``image_token_index``). That the forward pass knows the new numbers is seen by tracing again (`retraced`).
Not here: the tokenizer, which has numbers of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.graph.layout import Positions
from surgeon.plan import Plan
from surgeon.rebuild.config_tree import Path, path_text

__all__ = ["removed_ids", "renumbered", "renumbered_fields"]

_LAST = frozenset({"id", "ids", "index"})
_SPECIAL = frozenset({"token", "bos", "eos", "pad", "unk", "cls", "sep", "mask"})


def removed_ids(plan: Plan, graph: Graph) -> Positions:
    """Which token ids `plan` removes, ascending.

    Raises:
        InfeasibleError: there are several vocabularies, not cut alike; a config does not say which it means.
    """
    kept = plan.kept()
    removed: dict[str, list[int]] = {}
    for group in graph.groups:
        gone = np.setdiff1d(np.arange(group.size), kept.get(group.name, range(group.size)))
        for port in group.ports:
            if port.direction == "input" and port.dim is None and port.name.endswith("input_ids"):
                removed.setdefault(port.name, []).extend(port.layout.positions(gone).reshape(-1).tolist())
    found = {name: np.unique(numbers) for name, numbers in removed.items()}
    if len({numbers.tobytes() for numbers in found.values()}) > 1:
        raise InfeasibleError(
            f"the vocabularies of {' and '.join(found)} are not cut alike, and the ids that the config names "
            "are of either",
            hint="remove the same indices of both, or of none",
        )
    return next(iter(found.values()), np.arange(0))


def renumbered(named: Mapping[Path, object], removed: Positions) -> dict[Path, int]:
    """New numbers of the tokens that the leaves `named` of a config say; only those that change.

    Raises:
        InfeasibleError: a token that is named is removed.
    """
    found: dict[Path, int] = {}
    for path, number in named.items() if len(removed) else ():
        if _says_a_token(path) and type(number) is int and number >= removed[0]:
            found[path] = _renumber(path, number, removed)
    return found


def _says_a_token(path: Path) -> bool:
    words = next((step.split("_") for step in reversed(path) if isinstance(step, str)), [""])
    return words[-1] in _LAST and not _SPECIAL.isdisjoint(words)


def _renumber(path: Path, number: int, removed: Positions) -> int:
    if number in removed:
        raise InfeasibleError(
            f"{path_text(path)} is {number}, an index of the vocabulary that the plan removes",
            hint="keep the tokens that the config names",
        )
    return number - int(np.searchsorted(removed, number))


def renumbered_fields(fields: Mapping[str, object], removed: Positions) -> dict[str, Any]:
    """Fields of a generation config, numbers or lists of them, with the new numbers of tokens.

    Raises:
        InfeasibleError: a token that is named is removed.
    """
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, (list, tuple))}
    made: dict[str, object] = {**fields, **lists}
    named: dict[Path, object] = {(name,): value for name, value in fields.items()}
    named |= {(name, place): item for name, items in lists.items() for place, item in enumerate(items)}
    for (name, *place), number in renumbered(named, removed).items():
        if place:
            lists[str(name)][int(place[0])] = number
        else:
            made[str(name)] = number
    return made
