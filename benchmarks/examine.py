"""What is asked of one family, step by step; each says in words where it stops, and later ones still try.

Here: build, trace, proof. What is cut, exported and loaded again stands in `round_trip`.
"""

from __future__ import annotations

import collections
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.forked import Report
from benchmarks.round_trip import Trip
from benchmarks.zoo import Family, Specimen, Unbuildable, specimen
from benchmarks.zoo.running import random_ids
from benchmarks.zoo.sizes import SIZES, Sizes
from surgeon.graph import Graph
from surgeon.rebuild.symmetry import Proof, prove, randomised
from surgeon.trace import recorded_inputs, trace_module

__all__ = ["STAGES", "examine"]

STAGES = ("build", "trace", "prove", "cut", "depth", "export", "reload")
PROBE_ROWS, PROBE_LENGTH = 2, 13


class Subject:
    """One family on its way through the stages."""

    def __init__(self, found: Specimen, folder: Path) -> None:
        self.specimen = found
        self.folder = folder
        self.graph: Graph | None = None

    @cached_property
    def tokens(self) -> Tensor:
        """Few random tokens, of prime number, more than the zoo's attention windows."""
        return random_ids(self.specimen.model, PROBE_ROWS, PROBE_LENGTH)

    @cached_property
    def trip(self) -> Trip:
        """The model with weights that matter, on its way to a checkpoint."""
        assert self.graph is not None
        model = randomised(self.specimen.model).to(torch.float32)
        _as_stock_makes_them(model, self.specimen.model)
        return Trip(self.specimen.family, model, self.graph, self.tokens)


def _as_stock_makes_them(model: PreTrainedModel, whole: PreTrainedModel) -> None:
    """Give back the tensors that no checkpoint holds: stock transformers computes them when it loads."""
    own, now = whole.state_dict(), model.state_dict()
    with torch.no_grad():
        for name in own.keys() & set(whole._keys_to_ignore_on_save or ()):
            now[name].copy_(own[name])


def examine(family: Family, stages: tuple[str, ...], report: Report, sizes: Sizes = SIZES) -> None:
    """Put `family`, of these tiny `sizes`, through `stages` as far as it goes; one report a stage."""
    torch.set_num_threads(1)
    start = time.monotonic()
    try:
        found = specimen(family, sizes=sizes)
    except Unbuildable as error:
        report({"stage": "build", "ok": False, "why": str(error)})
        return
    report({"stage": "build", "ok": True, "variant": found.variant, "size": found.size, "s": _since(start)})
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        _go(Subject(found, Path(folder)), stages, report)


def _go(subject: Subject, stages: tuple[str, ...], report: Report) -> None:
    for name in stages:
        start = time.monotonic()
        try:
            words = _STEPS[name](subject)
        except Exception as error:  # the finding: anything may be raised
            words = {"ok": False, "why": _words(error)}
        report({"stage": name, **words, "s": _since(start)})
        if subject.graph is None or (name == "export" and not words["ok"]):
            return


def _trace(subject: Subject) -> dict[str, object]:
    graph = trace_module(subject.specimen.model)
    subject.graph = graph
    reasons = collections.Counter(reason for group in graph.groups for reason in group.locks)
    sizes: dict[str, list[int]] = {}
    for group in graph.groups:
        counts = sizes.setdefault(group.kind, [0, 0])
        counts[group.locked is not None] += 1
    return {
        "ok": True,
        "kinds": sizes,
        "locks": dict(reasons),
        "stacks": {stack.container: len(stack.blocks) for stack in graph.stacks},
        "untouched": [p.name for p in graph.parameters.values() if not p.touched and not p.buffer],
        "notes": list(graph.notes),
    }


def _proof_inputs(
    subject: Subject, model: PreTrainedModel, recorded: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """One kind of input that a trace records, text or images or sounds beside it; numbers at random.

    Text alone is cut to few tokens. Placeholders and what describes an image stay as they are. Fewer rows do,
    where every input has its share of them, or one where only the first holds placeholders.
    """
    rows, length = subject.tokens.shape
    traced = len(next(iter(recorded.values())))
    if all(len(value) % traced == 0 for value in recorded.values()):
        recorded = {name: value[: len(value) // traced * rows] for name, value in recorded.items()}
    else:
        spare = {n for n, v in recorded.items() if len(v) == traced and not v[1:].any()}
        recorded = {name: value[:1] if name in spare else value for name, value in recorded.items()}
    inputs: dict[str, Tensor] = {}
    for seed, (name, value) in enumerate(recorded.items()):
        if value.is_floating_point():
            generator = torch.Generator().manual_seed(seed)
            inputs[name] = torch.randn(value.shape, generator=generator)
        elif name.endswith("input_ids"):
            ids = random_ids(model, *value.shape, seed)
            free = (value == 0) & ~torch.isin(ids, value[value != 0])
            inputs[name] = torch.where(free, ids, value)
        else:
            inputs[name] = value
    if all(name.endswith("input_ids") for name in inputs):
        return {name: random_ids(model, rows, length, seed) for seed, name in enumerate(inputs)}
    return inputs


def _proofs(subject: Subject, model: PreTrainedModel, graph: Graph) -> list[Proof]:
    """Of every unlocked Group, on the last kind of input, and on others while it does not matter there."""
    found: dict[str, Proof] = {}
    for recorded in reversed(recorded_inputs(subject.specimen.model)):
        open_ones = [
            group
            for group in graph.groups
            if group.locked is None
            and (group.name not in found or (found[group.name].passed and not found[group.name].sharp))
        ]
        if open_ones:
            inputs = _proof_inputs(subject, model, recorded)
            found |= {proof.axis: proof for proof in prove(model, graph, open_ones, inputs=inputs)}
    return list(found.values())


def _prove(subject: Subject) -> dict[str, object]:
    assert subject.graph is not None
    model = randomised(subject.specimen.model)
    proofs = _proofs(subject, model, subject.graph)
    failed = {p.axis: p.error for p in proofs if not p.passed}
    return {
        "ok": not failed,
        "proven": len(proofs) - len(failed),
        "failed": failed,
        "blunt": [p.axis for p in proofs if p.passed and not p.sharp],
        "why": f"{len(failed)} of {len(proofs)} unlocked groups are no symmetry" if failed else None,
    }


_STEPS: dict[str, Callable[[Subject], dict[str, object]]] = {
    "trace": _trace,
    "prove": _prove,
    "cut": lambda subject: subject.trip.cut(),
    "depth": lambda subject: subject.trip.depth(),
    "export": lambda subject: subject.trip.export(subject.folder),
    "reload": lambda subject: subject.trip.reload(subject.folder),
}


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:400]}"


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)
