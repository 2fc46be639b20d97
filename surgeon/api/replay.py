"""`replay`: carry out a plan file on a checkpoint, without the recipe and without calibration text."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from surgeon.api.cost import cost_of
from surgeon.api.planning import traced
from surgeon.api.progress import Progress, silent
from surgeon.api.publishing import Writing, publish
from surgeon.api.subject import Subject
from surgeon.errors import InfeasibleError, PlanError
from surgeon.io import check_output, read_plan
from surgeon.io.side_files import parse_size
from surgeon.plan import Plan, Report, check_plan
from surgeon.rebuild import ExportLayout, arrange, diagnose
from surgeon.recipe import Export
from surgeon.repair import lacking_biases

__all__ = ["replay", "same_model", "to_planned_family"]


def replay(
    plan: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    layout: ExportLayout = "uniform",
    proof: bool = True,
    shard_size: str = "5GB",
    memory: str | None = None,
    device: str = "cpu",
    cache: str | Path | None = None,
    progress: Progress = silent,
) -> Report:
    """Cut the checkpoint `model` as the file `plan` says, prove the result, publish it as `out`.

    Args:
        plan: a plan file.
        model: folder or hub id of the checkpoint.
        out: folder to write; it must not exist.
        layout: how blocks of different widths are put.
        proof: compare the result with the masked original, and write checksums; else only write it.
        shard_size: largest size of one file of weights.
        memory: size that the process may take; None: a share of what is free.
        device: where to compute.
        cache: folder where the model's graph is kept and found again; None keeps none.
        progress: told what is going on.

    Raises:
        PlanError: the plan was made for another model.
        InfeasibleError: it cannot be carried out.
        VerifyError: the result is not what was planned; nothing is published.
    """
    budget = None if memory is None else parse_size(memory)
    parse_size(shard_size)  # refused before any work is done
    subject = Subject(model, device)
    target = check_output(out, None if subject.checkpoint is None else subject.checkpoint.folder)
    export = Export(layout=layout)
    read = read_plan(plan)
    to_planned_family(subject, read)
    known = traced(subject, progress, export, cache)
    if subject.add_biases(lacking_biases(read, known.graph)):
        known = traced(subject, progress, export, cache)
    check_plan(read, known.graph, known.limits)
    read = read_plan(plan, known.graph)
    same_model(read, subject)
    arranged = arrange(known.space, known.graph, read, layout)
    report = Report(
        model=subject.name,
        before=cost_of(Plan(read.model_type), known.graph, subject.dtype.itemsize),
        after=cost_of(arranged.built, known.graph, subject.dtype.itemsize),
        loads=diagnose(arranged, (*subject.ledger, *arranged.ledger)),
    )
    writing = Writing(target, shard_size=shard_size, timed=False, proof=proof, memory=budget)
    return publish(subject, read, known, report, writing, progress)


def to_planned_family(subject: Subject, plan: Plan) -> None:
    """Move the model where the plan's recipe moved it; one that cannot be moved is left to `check_plan`."""
    with suppress(InfeasibleError):
        subject.rehome(plan.model_type)


def same_model(plan: Plan, subject: Subject) -> None:
    """Refuse a Plan whose scores were taken on other weights.

    Raises:
        PlanError: with both fingerprints.
    """
    found = subject.fingerprint()
    if plan.fingerprint is not None and found is not None and plan.fingerprint != found:
        raise PlanError(
            f"the plan was made for weights {plan.fingerprint[:23]}…, {subject.name} has {found[:23]}…",
            hint="make the plan again for these weights, or give the model that it was made for",
        )
