"""Answers: what was found out about Plans of one model, so that it need not be found out again.

Which sizes a config can express, and what it becomes, is measured by building models, for which torch and
transformers are needed. The answers are plain data and depend on how much is cut, hardly ever on which
indices. Not here: who knows (`surgeon.rebuild`), and where answers are kept (`surgeon.io.outlines`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from surgeon.graph import Graph, Group
from surgeon.plan.limits import Limits, Refusal
from surgeon.plan.plan import Plan

__all__ = ["AnsweredLimits", "Answers", "Unanswered", "structure_of"]


class Unanswered(Exception):
    """Something was asked that is not known; whoever can find it out must be asked. No fault of anyone."""


class Answers:
    """Plain data by question, in words; `known` grows where whoever asks can find out what is lacking."""

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        self.known = dict(known or {})

    def get(self, question: Sequence[object], find: Callable[[], Any] | None = None) -> Any:
        """The answer to a question; `find` gives one that is not known, to be remembered.

        Raises:
            Unanswered: it is not known, and nothing finds it.
        """
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        if key not in self.known:
            if find is None:
                raise Unanswered(str(question[0]))
            self.known[key] = find()
        return self.known[key]


class AnsweredLimits:
    """The `Limits` that `inner` knows, each answer remembered; without `inner`, what is remembered."""

    def __init__(self, answers: Answers, inner: Limits | None = None) -> None:
        self._answers = answers
        self._inner = inner

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """As the inner limits say, or said."""
        inner = self._inner
        find = None if inner is None else lambda: [list(held) for held in inner.tied(names)]
        return tuple(tuple(held) for held in self._answers.get(("tied", *names), find))

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        """As the inner limits say, or said."""
        inner = self._inner

        def find() -> str | None:
            refusal = None if inner is None else inner.refuse(sizes)
            return None if refusal is None else refusal.reason

        def near() -> list[int]:
            refusal = None if inner is None else inner.refuse(sizes)
            return [] if refusal is None else list(refusal.nearest)

        def seek() -> tuple[int, ...]:
            return tuple(self._answers.get(("near", dict(sizes)), None if inner is None else near))

        reason = self._answers.get(("refuse", dict(sizes)), None if inner is None else find)
        return None if reason is None else Refusal(reason, seek)

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """As the inner limits say, or said."""
        inner = self._inner
        find = None if inner is None else lambda: list(inner.nearest(names, count, sizes))
        return tuple(self._answers.get(("nearest", list(names), count, dict(sizes)), find))


def structure_of(plan: Plan, graph: Graph) -> dict[str, object]:
    """All that a config, and the shapes and names of tensors, can depend on in a Plan, as plain data.

    How many indices of every Axis stay; which ones, where constants that the model computes have places for
    them, or a config may name them, as it names ids of a vocabulary. And what is dropped.
    """
    kept = {
        axis: list(indices) if _named(graph.group(axis), graph) else len(indices)
        for axis, indices in plan.kept().items()
    }
    return {"kept": kept, "dropped": list(plan.dropped)}


def _named(group: Group, graph: Graph) -> bool:
    """Whether more than weights tells the indices of a Group apart."""
    stored = (not graph.parameters[site.param].buffer for site in group.sites)
    return bool(group.ports) or not all(stored)
