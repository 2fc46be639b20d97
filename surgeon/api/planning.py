"""From a recipe and a model to a Plan: the steps, one after the other, each on what the last one left.

The order is that of the design: trace, measure what the config can express, then for every step its
statistics, its proposal, its checks. Weights are loaded, and text is read, only where a step declares
that it needs them. Not here: cutting (`surgeon.api.publishing`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from surgeon.api.budget import check_budget, held_whole, streamed_block
from surgeon.api.cost import cost_of
from surgeon.api.known_ids import check_known_ids
from surgeon.api.on_demand import OnDemand
from surgeon.api.outlining import Outlining
from surgeon.api.progress import Progress
from surgeon.api.stepping import take_steps
from surgeon.api.subject import Subject
from surgeon.calibrate import Bench, Memory, Samples
from surgeon.calibrate.walk import as_it_is
from surgeon.errors import InfeasibleError
from surgeon.graph import Graph
from surgeon.io.findings import Findings
from surgeon.io.statistics_cache import StatisticsCache
from surgeon.io.waiting import Waiting
from surgeon.operations import Operation, State
from surgeon.plan import (
    Cost,
    Limits,
    Plan,
    Report,
    StepRecord,
)
from surgeon.rebuild import (
    ConfigSpace,
    ExportLayout,
    arrange,
    diagnose,
    limited_part,
    limits_of,
    probe,
    solve,
)
from surgeon.recipe import Export, Recipe, check_recipe
from surgeon.trace import trace_module

__all__ = ["Planned", "Traced", "make_plan", "traced"]


@dataclass(frozen=True)
class Traced:
    """A model's Graph, what its config can express, and in which layout it is exported.

    `bounds` is the layout whose limits a Plan is under: that of the export, or a stricter one where other
    loaders must take the result.
    """

    graph: Graph
    space: ConfigSpace
    layout: ExportLayout = "uniform"
    bounds: ExportLayout = "uniform"

    @property
    def limits(self) -> Limits:
        """The limits that a Plan for this model is under."""
        return limits_of(self.space, self.graph, self.bounds)

    def refusal(self, plan: Plan) -> str | None:
        """Why no config builds what `plan` leaves, or None."""
        try:
            solve(self.space, self.graph, limited_part(plan, self.graph, self.bounds))
        except InfeasibleError as error:
            return None if self._table_says(plan) else error.message
        return None

    def _table_says(self, plan: Plan) -> bool:
        """Whether a table of modules says what no field does."""
        if self.bounds != "per_layer":
            return False
        try:
            arrange(self.space, self.graph, plan, self.bounds)
        except InfeasibleError:
            return False
        return True


@dataclass(frozen=True)
class Planned:
    """A Plan, the model that it is for, and the record of how it came about."""

    plan: Plan
    traced: Traced
    report: Report


def traced(subject: Subject, progress: Progress, export: Export, cache: str | Path | None = None) -> Traced:
    """Trace the model, and measure which config field holds what; or take what `cache` has of it."""
    bounds = "uniform" if export.ordinary else export.layout
    findings = None if cache is None or subject.in_memory else Findings(cache)
    known = None if findings is None else findings.load(subject.config)
    if known is None:
        progress("trace", 0, None)
        graph = trace_module(subject.structure)
        progress("probe the config", 0, None)
        known = graph, probe(subject.config, graph)
        if findings is not None:
            findings.save(subject.config, *known)
    return Traced(*known, export.layout, bounds)


def make_plan(
    subject: Subject,
    recipe: Recipe,
    samples: Callable[[], Samples] | None,
    progress: Progress,
    cache: str | Path | None = None,
    memory: int | None = None,
) -> Planned:
    """Carry out the steps of `recipe` as far as a Plan.

    Args:
        subject: the model.
        recipe: what to do.
        samples: reads the calibration samples when first needed; None where there is no text.
        progress: told what is going on.
        cache: folder where measurements are kept and found again; None keeps none.
        memory: bytes that the process may take. What waits between blocks that are streamed has what they
            leave of it, the rest waits in files. None: whatever there is, and a share of what is free.

    Raises:
        RecipeError: a step does not fit the model.
        InputError: the folder `cache` cannot be made or written to, or more than `memory` is needed.
        SurgeonError: a step refused; its message says which and why.
    """
    known_before = None if cache is None else _memory(subject, cache)
    if recipe.rehome is not None:
        subject.rehome(recipe.rehome)
    known = traced(subject, progress, recipe.export, cache)
    check_recipe(recipe, known.graph)
    before = cost_of(Plan(known.graph.model_type), known.graph, subject.dtype.itemsize)
    if _with_biases(subject, recipe, known.graph):
        known = traced(subject, progress, recipe.export, cache)
    reads = any(isinstance(step, Operation) and step.reads_weights for step in recipe.steps)
    bench = None
    if samples is not None:
        left = None
        if subject.streams and memory is not None:
            needed = streamed_block(known.graph, recipe.steps, subject.dtype)
            check_budget(memory, needed, "measuring block by block", "or a shorter calibration.seq_len")
            left = memory - needed
        bench = _bench(subject, known.graph, samples, progress, known_before, left, memory)
    notes = Outlining.begin(subject, recipe, known.graph, None if samples is not None else cache)
    state = State(
        graph=known.graph,
        plan=Plan(known.graph.model_type, fingerprint=subject.fingerprint() if reads else None),
        config_limits=known.limits if notes is None else notes.limits(known.limits),
        source=OnDemand(subject.unread, subject.name) if reads else None,
        measure=None if bench is None else bench.measure,
        bench=bench,
        inexpressible=known.refusal if notes is None else notes.inexpressible(known.refusal),
    )
    state, records = take_steps(recipe, state, progress)
    return Planned(state.plan, known, _report(subject, recipe, known, state.plan, before, records, notes))


def _with_biases(subject: Subject, recipe: Recipe, graph: Graph) -> bool:
    """Give the model the biases that steps need; whether that changed it.

    Raises:
        InfeasibleError: it cannot have those of a step.
    """
    changed = False
    for number, step in enumerate(recipe.steps):
        names = step.biases(graph) if isinstance(step, Operation) else ()
        try:
            changed |= bool(names) and subject.add_biases(names)
        except InfeasibleError as error:
            error.message = f"step {number} '{step.op}': {error.message}"
            raise
    return changed


def _memory(subject: Subject, cache: str | Path) -> Memory:
    return Memory(StatisticsCache(cache), subject.identity, subject.weights_on)


def _bench(
    subject: Subject,
    graph: Graph,
    samples: Callable[[], Samples],
    progress: Progress,
    known: Memory | None,
    waiting: int | None,
    memory: int | None,
) -> Bench:
    keep = Waiting(waiting).keep if subject.streams else as_it_is

    def module() -> PreTrainedModel:
        if not subject.streams and not subject.in_memory:
            check_budget(
                memory, held_whole(subject.structure), "loading the model to measure it", "or --stream"
            )
        return subject.measured

    return Bench(
        graph,
        module,
        samples,
        progress,
        known,
        subject.streams,
        subject.weights_on,
        keep,
    )


def _report(
    subject: Subject,
    recipe: Recipe,
    known: Traced,
    plan: Plan,
    before: Cost,
    records: tuple[StepRecord, ...],
    notes: Outlining | None,
) -> Report:
    dtype = getattr(torch, recipe.export.dtype) if recipe.export.dtype else subject.dtype
    arranged = arrange(known.space, known.graph, plan, known.layout)
    check_known_ids(arranged.built, known.graph, arranged.config)
    ledger = (*subject.ledger, *arranged.ledger)
    report = Report(
        model=subject.name,
        before=before,
        after=cost_of(arranged.built, known.graph, dtype.itemsize),
        steps=records,
        ledger=ledger,
        loads=diagnose(arranged, ledger),
    )
    if notes is not None:
        notes.finish(plan, arranged, report)
    return report
