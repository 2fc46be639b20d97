"""While a plan is made: note what lets it be made again, with other indices too, without building the model.

Not here: making it again (`outlined`), and where the notes are kept (`surgeon.io.outlines`).
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from surgeon.api.outlined import is_plain
from surgeon.api.subject import Subject
from surgeon.graph import Graph
from surgeon.io.disk_layout import pieces_of
from surgeon.io.disk_source import DiskTensor
from surgeon.io.findings import findings_key
from surgeon.io.outlines import Outline, Outlines
from surgeon.io.shards import Piece
from surgeon.io.slices import Selection
from surgeon.io.writer import pages_of
from surgeon.operations.state import Inexpressible
from surgeon.plan import AnsweredLimits, Answers, Limits, Plan, Report, cuts_of, structure_of
from surgeon.rebuild import Arrangement, ModuleSource, architecture, skeleton
from surgeon.rebuild.tensors import stored_tensors
from surgeon.rebuild.unread import Unread
from surgeon.recipe import Recipe
from surgeon.registry import plugged

__all__ = ["Outlining"]


class Outlining:
    """Notes on one model; begun by `begin`, where such a plan can be made again without building it."""

    def __init__(self, kept: Outlines, subject: Subject, folder: Path, graph: Graph) -> None:
        self._kept = kept
        self._subject = subject
        self._folder = folder
        self._graph = graph
        earlier = kept.load()
        self._answers = Answers() if earlier is None else earlier.answers
        self._began = len(self._answers.known)

    @classmethod
    def begin(
        cls, subject: Subject, recipe: Recipe, graph: Graph, cache: str | Path | None
    ) -> Outlining | None:
        """Notes on the model of `graph`; None where an outline is too little, or nothing is kept."""
        checkpoint = subject.checkpoint
        if cache is None or checkpoint is None or not checkpoint.has_weights or subject.changed:
            return None
        if not is_plain(recipe) or plugged() or findings_key(subject.config) is None:
            return None
        kept = Outlines(cache, checkpoint.folder, checkpoint.tensors)
        return cls(kept, subject, checkpoint.folder, graph)

    def limits(self, limits: Limits) -> Limits:
        """`limits`, whose answers are noted."""
        return AnsweredLimits(self._answers, limits)

    def inexpressible(self, refusal: Inexpressible) -> Inexpressible:
        """`refusal`, whose answers are noted."""

        def asked(plan: Plan) -> str | None:
            if plan.assigned:
                return refusal(plan)
            return self._answers.get(("refusal", structure_of(plan, self._graph)), lambda: refusal(plan))

        return asked

    def finish(self, plan: Plan, arranged: Arrangement, report: Report) -> None:
        """Note what `plan` comes to, and keep everything that was noted."""
        if plan.assigned:
            return
        original = self._subject.unread
        stored = {
            name: tensor.lazy.header.name
            for name, tensor in stored_tensors(original).items()
            if isinstance(tensor, Unread) and isinstance(tensor.lazy, DiskTensor)
        }

        def come_to() -> dict[str, object] | None:
            blank = skeleton(arranged.config, dtype=original.dtype)
            stream = arranged.stream(ModuleSource(original), self._graph)
            pieces = pieces_of(blank, stream)
            listed = _listed(pieces, plan, self._graph, stored)
            return (
                None
                if listed is None
                else {
                    "pieces": listed,
                    "pages": pages_of(blank, self._folder),
                    "ledger": [row.model_dump(mode="json") for row in report.ledger],
                    "loads": [one.model_dump(mode="json") for one in report.loads],
                }
            )

        self._answers.get(("comes to", structure_of(plan, self._graph)), come_to)
        if len(self._answers.known) > self._began:
            code = {inspect.getfile(kind) for kind in (type(original.config), architecture(original.config))}
            width = self._subject.dtype.itemsize
            self._kept.save(Outline(self._graph, width, stored, self._answers), sorted(code))


def _listed(
    pieces: tuple[Piece, ...], plan: Plan, graph: Graph, stored: dict[str, str]
) -> list[list[object]] | None:
    """New name, parameter and shape of everything that is written, each a parameter with its cuts.

    None where one is more than that: computed, or put together of several.
    """
    params: dict[str, str] = {}
    for param, name in stored.items():
        params.setdefault(name, param)
    cuts = cuts_of(plan, graph)
    listed: list[list[object]] = []
    for piece in pieces:
        content = piece.content
        param = params.get(content.source.name) if isinstance(content, Selection) else None
        if param is None or not isinstance(content, Selection):
            return None
        own = cuts.get(param, {})
        if own.keys() != content.dims.keys() or any(
            not np.array_equal(kept, content.dims[dim]) for dim, kept in own.items()
        ):
            return None
        listed.append([piece.name, param, list(piece.shape)])
    return listed
