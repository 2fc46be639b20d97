"""From a Plan to a checkpoint folder: cut, write, prove, measure, reload; published only if all of it holds.

Weights go from shards to shards, and every check reads them one by one, so the memory needed is that of the
largest, not of the model. Not here: how the plan came about (`surgeon.api.planning`), and how a folder
appears (`surgeon.io`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from surgeon.api.beside import write_beside
from surgeon.api.budget import check_budget, read_in_use
from surgeon.api.foreign_code import explained
from surgeon.api.known_ids import check_known_ids
from surgeon.api.measuring import HeldOut, before_and_after
from surgeon.api.planning import Traced
from surgeon.api.progress import Progress
from surgeon.api.reload import check_reload
from surgeon.api.room import room_for
from surgeon.api.subject import Subject
from surgeon.errors import CheckpointError, VerifyError
from surgeon.io import (
    Checkpoint,
    bytes_needed,
    check_finite,
    publishing,
    write_checkpoint,
)
from surgeon.io.boot import boot_id
from surgeon.io.checksums import write_checksums
from surgeon.io.generation import generation_page
from surgeon.io.work_key import work_key
from surgeon.plan import Plan, Report
from surgeon.rebuild import Arrangement, Comparison, ModuleSource, arrange, compare, probe_tokens, skeleton
from surgeon.rebuild.config_ids import removed_ids
from surgeon.rebuild.tensors import stored_tensors
from surgeon.rebuild.unread import unread_module

__all__ = ["COMPARE", "RELOAD", "Writing", "in_words", "publish"]

COMPARE, RELOAD = "compare with the masked original", "reload with stock transformers"
SIZES = {"parameters": "", "bytes": "B", "kv_cache_bytes_per_token": "B/token"}


@dataclass(frozen=True)
class Writing:
    """Where and how a result is written, and what goes beside it."""

    out: Path
    dtype: torch.dtype | None = None
    shard_size: str = "5GB"
    recipe: str | None = None
    """The resolved recipe, where there is one."""
    held_out: HeldOut | None = None
    """What to measure on, before and after."""
    proof: bool = True
    """Compare the result with the masked original, write checksums, and wait until all is on the disk."""
    timed: bool = True
    """Measure the speed of both models."""
    memory: int | None = None
    """Bytes that the process may take; None: a share of what is free."""


def publish(
    subject: Subject, plan: Plan, traced: Traced, report: Report, writing: Writing, progress: Progress
) -> Report:
    """Carry out `plan` and publish the result; the Report with what was checked and measured.

    Raises:
        VerifyError: the result is not what was planned; nothing is published.
        InputError: the output cannot be written; nothing is published.
    """
    progress("cut", 0, None)
    arranged = arrange(traced.space, traced.graph, plan, traced.layout)
    check_known_ids(arranged.built, traced.graph, arranged.config)
    original = subject.unread
    blank = skeleton(arranged.config, dtype=writing.dtype or original.dtype)
    report = report.model_copy(update={"ledger": subject.ledger + arranged.ledger})
    source = None if subject.checkpoint is None else subject.checkpoint.folder
    key = None if source is None else _key(plan, subject, arranged, writing)
    _check_unchanged(plan, subject)
    if subject.checkpoint is not None and writing.proof:
        check_budget(writing.memory, read_in_use(original), "reading each weight as it is used")
    needed = bytes_needed(blank, source)
    with publishing(writing.out, source, needed, key, durable=writing.proof) as folder:
        sums = write_checkpoint(
            folder,
            blank,
            source,
            tensors=arranged.stream(ModuleSource(original), traced.graph),
            dtype=writing.dtype,
            texts=generation_page(source, removed_ids(plan, traced.graph)),
            shard_size=writing.shard_size,
            told=lambda done, total: progress("write", done, total),
            checksums=writing.proof,
            durable=writing.proof,
        )
        written = Checkpoint.open(folder).unread_module(subject.device)
        if writing.proof:
            progress(COMPARE, 0, None)
            with explained(COMPARE):
                comparison = _proven(original, written, arranged, traced, writing.dtype)
            with explained("measure before and after"):
                measured = _measured(subject, folder, written, writing, report, progress)
            progress(RELOAD, 0, None)
            resident = room_for(written, writing.memory)
            with explained(RELOAD):
                checks = check_reload(folder, written, comparison.tolerance, resident, original)
            checks = (in_words(comparison), *checks)
            measured |= {"comparison": comparison.to_dict(), "checks": list(checks)}
            report = report.model_copy(update={"measured": measured})
        write_beside(folder, plan, traced.graph, report, writing.recipe, arranged.built)
        if writing.proof:
            write_checksums(folder, sums)
    return report


def _check_unchanged(plan: Plan, subject: Subject) -> None:
    """Refuse weights that are no longer those that the plan was made on.

    Raises:
        CheckpointError: they were changed since.
    """
    if subject.checkpoint is not None and plan.fingerprint not in (None, subject.fingerprint()):
        raise CheckpointError(
            f"the weights of {subject.name} were changed while the plan was made",
            hint="run it again once nobody writes to the model folder",
        )


def _key(plan: Plan, subject: Subject, arranged: Arrangement, writing: Writing) -> str:
    """What two runs must have in common for one to go on after the shards of the other.

    Where nothing waits for the disk, that the machine was not started anew is part of it.
    """
    boot = None if writing.proof else boot_id()
    said = (plan.edits, subject.fingerprint(), arranged.config.to_dict(), writing.dtype, writing.shard_size)
    return work_key(repr((*said, boot)), plan.values)


def in_words(comparison: Comparison) -> str:
    """What a passed comparison says."""
    return (
        f"equal to the masked original in {comparison.precision}: off by {comparison.relative:.1e} of the "
        f"largest logit (allowed {comparison.tolerance:.0e}) on {comparison.tokens} tokens"
    )


def _proven(
    original: PreTrainedModel,
    written: PreTrainedModel,
    arranged: Arrangement,
    traced: Traced,
    dtype: torch.dtype | None,
) -> Comparison:
    """Compare what was written with the masked original; in another dtype, what was cast on the way.

    Raises:
        VerifyError: they differ.
        CheckpointError: the original's weights are not finite.
    """
    small = written
    if dtype not in (None, original.dtype):
        config = arranged.config
        small = unread_module(
            skeleton(config, dtype=original.dtype),
            _Streamed(arranged.stream(ModuleSource(original), traced.graph)),
        )
        _check_cast(small, written, dtype)
    comparison = compare(original, small, arranged.plan, traced.graph, probe_tokens(original))
    if comparison.max_abs != comparison.max_abs:
        check_finite(Path(cast(str, original.name_or_path)), original)  # transformers sets it in any config
    return comparison.require()


def _check_cast(small: PreTrainedModel, written: PreTrainedModel, dtype: torch.dtype) -> None:
    """Refuse a file that does not hold the tensors in their new dtype."""
    wanted = stored_tensors(small)
    for name, tensor in stored_tensors(written).items():
        want = wanted[name].detach().to(dtype=dtype) if tensor.is_floating_point() else wanted[name]
        if not torch.equal(tensor.detach(), want):
            raise VerifyError(
                f"'{name}' was not written as it was computed", hint="report this with the recipe"
            )


class _Streamed:
    """A TensorSource over a stream of described tensors."""

    def __init__(self, stream: Iterable[tuple[str, Tensor]]) -> None:
        self._tensors = dict(stream)

    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def get(self, name: str) -> Tensor:
        return self._tensors[name]


def _measured(
    subject: Subject,
    folder: Path,
    written: PreTrainedModel,
    writing: Writing,
    report: Report,
    progress: Progress,
) -> dict[str, object]:
    """Before and after: sizes, and where both models fit into memory what is timed or computed from text."""
    if (
        not writing.timed
        or not room_for(written, writing.memory)
        or not room_for(subject.unread, writing.memory)
    ):
        return {"metrics": _counted(report)}
    small = Checkpoint.open(folder).load_module(device=subject.device)
    return before_and_after(subject, small, writing.held_out, progress)


def _counted(report: Report) -> dict[str, object]:
    """Sizes as they were planned, where nothing is measured."""
    found: dict[str, object] = {}
    for name, unit in SIZES.items():
        before, after = getattr(report.before, name), getattr(report.after, name)
        if before is not None and after is not None:
            found[name] = {"unit": unit, "before": before, "after": after}
    return found
