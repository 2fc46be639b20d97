"""What is asked of one family: trace it, prove its Groups. Each step says in words where it stops.

Here: trace and proof. What is cut, exported and loaded again stands in `round_trip`.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.forked import Report
from benchmarks.zoo import Family, Specimen, Unbuildable, specimen
from benchmarks.zoo.running import proof_inputs
from surgeon.graph import Graph
from surgeon.rebuild.execution import plain_execution
from surgeon.rebuild.forward import probe_tokens
from surgeon.rebuild.symmetry import prove, randomised
from surgeon.trace import trace_module

__all__ = ["STAGES", "examine"]

PROBE_ROWS, PROBE_LENGTH = 2, 13
"""Few tokens, of a length that is prime and beyond the zoo's attention windows."""

STAGES = ("build", "trace", "prove")


@dataclass
class Subject:
    """One family on its way through the stages."""

    specimen: Specimen
    graph: Graph | None = None


def examine(family: Family, stages: tuple[str, ...], report: Report) -> None:
    """Put `family` through `stages` as far as it goes; one report a stage."""
    torch.set_num_threads(1)
    start = time.monotonic()
    try:
        found = specimen(family)
    except Unbuildable as error:
        report({"stage": "build", "ok": False, "why": str(error)})
        return
    report(
        {"stage": "build", "ok": True, "variant": found.variant, "size": found.size, "s": _since(start)}
    )
    subject = Subject(found)
    for name in stages:
        start = time.monotonic()
        try:
            words = _STEPS[name](subject)
        except Exception as error:  # the finding: anything may be raised
            words = {"ok": False, "why": _words(error)}
        report({"stage": name, **words, "s": _since(start)})
        if subject.graph is None:
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


def _prove(subject: Subject) -> dict[str, object]:
    assert subject.graph is not None
    model = randomised(subject.specimen.model)
    with plain_execution(model), proof_inputs(model):
        tokens = probe_tokens(model, rows=PROBE_ROWS, length=PROBE_LENGTH)
        proofs = prove(model, subject.graph, tokens=tokens)
    failed = {p.axis: p.error for p in proofs if not p.passed}
    return {
        "ok": not failed,
        "proven": len(proofs) - len(failed),
        "failed": failed,
        "blunt": [p.axis for p in proofs if p.passed and not p.sharp],
        "why": f"{len(failed)} of {len(proofs)} unlocked groups are no symmetry" if failed else None,
    }


_STEPS: dict[str, Callable[[Subject], dict[str, object]]] = {"trace": _trace, "prove": _prove}


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:400]}"


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)
