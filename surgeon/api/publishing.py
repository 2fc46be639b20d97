"""From a Plan to a checkpoint folder: cut, prove, measure, write, reload; published only if all of it holds.

Not here: how the plan came about (`surgeon.api.planning`), and how a folder appears (`surgeon.io`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from surgeon.api.card import model_card
from surgeon.api.measuring import HeldOut, before_and_after
from surgeon.api.planning import Traced
from surgeon.api.progress import Progress
from surgeon.api.reload import check_reload
from surgeon.api.subject import Subject, in_dtype
from surgeon.io import bytes_needed, publishing, write_checkpoint, write_document, write_plan
from surgeon.plan import Plan, Report
from surgeon.rebuild import Comparison, apply_plan, compare, probe_tokens

__all__ = ["Writing", "in_words", "publish"]


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


def publish(
    subject: Subject, plan: Plan, traced: Traced, report: Report, writing: Writing, progress: Progress
) -> Report:
    """Carry out `plan` and publish the result; the Report with what was checked and measured.

    Raises:
        VerifyError: the result is not what was planned; nothing is published.
        InputError: the output cannot be written; nothing is published.
    """
    progress("cut", 0, None)
    small, ledger = apply_plan(subject.module, plan, traced.graph, traced.space, traced.layout)
    progress("compare with the masked original", 0, None)
    tokens = probe_tokens(subject.module)
    comparison = compare(subject.module, small, plan, traced.graph, tokens).require()
    written = small if writing.dtype is None else in_dtype(small, writing.dtype)
    measured = before_and_after(subject, written, writing.held_out, progress)
    report = report.model_copy(update={"ledger": subject.ledger + ledger, "measured": measured})
    source = None if subject.checkpoint is None else subject.checkpoint.folder
    with publishing(writing.out, source, bytes_needed(written, source)) as folder:
        progress("write", 0, None)
        texts = {"README.md": model_card(report)}
        if writing.recipe is not None:
            texts["surgeon.yaml"] = writing.recipe
        write_checkpoint(folder, written, source, texts=texts, shard_size=writing.shard_size)
        write_plan(plan, traced.graph, folder / "plan.json")
        progress("reload with stock transformers", 0, None)
        checks = (in_words(comparison), *check_reload(folder, written, comparison.tolerance))
        measured |= {"comparison": comparison.to_dict(), "checks": list(checks)}
        report = report.model_copy(update={"measured": measured})
        write_document(report.to_dict(), folder / "report.json")
    return report


def in_words(comparison: Comparison) -> str:
    """What a passed comparison says."""
    return (
        f"equal to the masked original in {comparison.precision}: off by {comparison.relative:.1e} of the "
        f"largest logit (allowed {comparison.tolerance:.0e}) on {comparison.tokens} tokens"
    )
