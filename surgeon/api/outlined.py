"""Plan and cut by what is known of a model beforehand; neither torch nor transformers is imported.

The same steps as ever, on a State whose graph and answers come from an earlier plan for a model of the same
config, and whose weights are numbers read from the shards. Where anything is asked that is not known, it is
all done in the thorough way. Nothing is compared with the masked original. Not here: that way (`planning`,
`publishing`), and how it comes to be known (`outlining`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.api.beside import write_beside
from surgeon.api.copying import write_copied
from surgeon.api.cost import cost_of
from surgeon.api.progress import Progress
from surgeon.api.stepping import take_steps
from surgeon.graph import Graph
from surgeon.io.boot import boot_id
from surgeon.io.fingerprint import fingerprint_of
from surgeon.io.header import TensorHeader
from surgeon.io.hub import local_folder
from surgeon.io.outlines import Outline, Outlines
from surgeon.io.publish import check_output, publishing
from surgeon.io.shards import Piece
from surgeon.io.side_files import parse_size
from surgeon.io.slices import Files, Selection
from surgeon.io.stored_numbers import has_numbers, stored_numbers
from surgeon.io.weights import find_weights
from surgeon.operations import Operation, State
from surgeon.plan import (
    AnsweredLimits,
    LedgerRow,
    Loads,
    Plan,
    Report,
    Unanswered,
    cuts_of,
    structure_of,
)
from surgeon.recipe import Recipe, check_recipe
from surgeon.registry import plugged

if TYPE_CHECKING:
    from torch import Tensor

    from surgeon.rebuild.tensors import Numbers

__all__ = ["Outlined", "is_plain", "outlined", "run_outlined"]

KEY = 16


@dataclass(frozen=True)
class Outlined:
    """A Plan that was made by an outline, and what it comes to: the tensors, and text files by name."""

    plan: Plan
    graph: Graph
    report: Report
    folder: Path
    pieces: tuple[Piece, ...]
    pages: Mapping[str, str]


def is_plain(recipe: Recipe) -> bool:
    """Whether a recipe reads no text, and its result is an ordinary checkpoint in the original's dtype."""
    reads = recipe.calibration is not None or recipe.evaluation is not None
    export = recipe.export
    return not reads and recipe.rehome is None and export.layout == "uniform" and export.dtype is None


def outlined(
    recipe: Recipe, model: object, cache: str | Path | None, files: Files, progress: Progress
) -> Outlined | None:
    """The Plan that `recipe` makes for `model`; None where not all is known that it takes.

    Args:
        recipe: what to do.
        model: folder of a checkpoint; for anything else nothing is known.
        cache: folder where outlines are kept.
        files: reads the weights; a file that changes meanwhile is an error when it is closed.
        progress: told what is going on.

    Raises:
        RecipeError: a step does not fit the model.
        SurgeonError: a step refused.
    """
    folder = local_folder(model) if isinstance(model, str | Path) else None
    if cache is None or folder is None or not (folder / "config.json").is_file():
        return None
    if not is_plain(recipe) or plugged():
        return None
    tensors = find_weights(folder)
    known = Outlines(cache, folder, tensors).load() if tensors else None
    if known is None:
        return None
    files.watch({tensor.file for tensor in tensors.values()})
    try:
        return _planned(recipe, known, folder, tensors, str(model), files, progress)
    except Unanswered:
        return None


def run_outlined(
    recipe: Recipe, model: object, out: str | Path, cache: str | Path | None, progress: Progress
) -> Report | None:
    """Publish what `recipe` makes of `model` as `out`, without proof; None where not all is known for it.

    Raises:
        RecipeError: a step does not fit the model.
        SurgeonError: a step refused; nothing is published.
        InputError: the output cannot be written; nothing is published.
    """
    folder = local_folder(model) if isinstance(model, str | Path) else None
    target = check_output(out, folder)
    with Files() as files:
        found = outlined(recipe, model, cache, files, progress)
        if found is None:
            return None
        size = parse_size(recipe.export.shard_size)
        needed = sum(piece.nbytes for piece in found.pieces)
        with publishing(target, found.folder, needed, _key(found, recipe), durable=False) as staging:
            told = partial(progress, "write")
            write_copied(staging, found.folder, found.pieces, found.pages, size, told)
            files.check()
            write_beside(staging, found.plan, found.graph, found.report, recipe.dump(), found.plan)
    return found.report


def _planned(
    recipe: Recipe,
    known: Outline,
    folder: Path,
    tensors: Mapping[str, TensorHeader],
    name: str,
    files: Files,
    progress: Progress,
) -> Outlined:
    """The Plan, and what it comes to.

    Raises:
        Unanswered: something is asked that is not known.
    """
    graph, answers = known.graph, known.answers
    check_recipe(recipe, graph)
    steps = [step for step in recipe.steps if isinstance(step, Operation)]
    if any(step.guard is not None or step.biases(graph) for step in steps):
        raise Unanswered("a measurement")
    reads = any(step.reads_weights for step in steps)
    fingerprint = fingerprint_of(folder / "config.json", tensors) if reads else None
    state = State(
        graph=graph,
        plan=Plan(graph.model_type, fingerprint=fingerprint),
        config_limits=AnsweredLimits(answers),
        source=_Numbers(known, tensors, files) if reads else None,
        inexpressible=lambda plan: answers.get(("refusal", structure_of(plan, graph))),
    )
    state, records = take_steps(recipe, state, progress)
    plan = state.plan
    if plan.assigned:
        raise Unanswered("computed weights")
    comes_to: Any = answers.get(("comes to", structure_of(plan, graph)))
    if comes_to is None:
        raise Unanswered("tensors that are put together")
    report = Report(
        model=name,
        before=cost_of(Plan(graph.model_type), graph, known.width),
        after=cost_of(plan, graph, known.width),
        steps=records,
        ledger=tuple(LedgerRow.model_validate(row) for row in comes_to["ledger"]),
        loads=tuple(Loads.model_validate(one) for one in comes_to["loads"]),
    )
    return Outlined(plan, graph, report, folder, _pieces(plan, known, tensors, comes_to), comes_to["pages"])


def _pieces(
    plan: Plan, known: Outline, tensors: Mapping[str, TensorHeader], comes_to: Mapping[str, Any]
) -> tuple[Piece, ...]:
    """What `plan` leaves of the stored tensors, by their new names."""
    cuts = cuts_of(plan, known.graph)
    pieces = []
    for new, param, shape in comes_to["pieces"]:
        stored = tensors[known.stored[param]]
        pieces.append(Piece(new, stored.dtype, tuple(shape), Selection(stored, cuts.get(param, {}))))
    return tuple(pieces)


def _key(found: Outlined, recipe: Recipe) -> str:
    """What two runs must have in common for one to go on after the shards of the other.

    That the machine was not started anew is part of it: what was not waited for may not be on the disk.
    """
    files = sorted(
        {piece.content.source.file for piece in found.pieces if isinstance(piece.content, Selection)}
    )
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    said = (found.plan.edits, found.pages, stamps, recipe.export.shard_size, boot_id())
    return hashlib.sha256(repr(said).encode()).hexdigest()[:KEY]


class _Numbers:
    """A source of weights as numbers; whoever wants tensors has to build the model."""

    def __init__(self, known: Outline, tensors: Mapping[str, TensorHeader], files: Files) -> None:
        self._stored = {param: tensors[name] for param, name in known.stored.items()}
        self._files = files

    def names(self) -> tuple[str, ...]:
        """Parameters that lie on disk as they are."""
        return tuple(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._find(name).shape

    def get(self, name: str) -> Tensor:
        """No tensor.

        Raises:
            Unanswered: always.
        """
        raise Unanswered(name)

    def numbers(self, name: str, starts: range) -> Iterator[Numbers]:
        """Runs of entries of the first dim of one tensor."""
        return stored_numbers(self._files, self._find(name), starts)

    def _find(self, name: str) -> TensorHeader:
        stored = self._stored.get(name)
        if stored is None or not has_numbers(stored):
            raise Unanswered(name)
        return stored
