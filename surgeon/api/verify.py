"""`verify`: does a smaller model compute what the original computes with the removed parts masked?"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from surgeon.api.biases import with_biases_of
from surgeon.api.foreign_code import explained
from surgeon.api.progress import Progress, silent
from surgeon.api.publishing import COMPARE, RELOAD, in_words
from surgeon.api.reload import check_reload
from surgeon.api.replay import same_model, to_planned_family
from surgeon.api.room import room_for
from surgeon.api.subject import Subject
from surgeon.io import read_plan
from surgeon.io.side_files import parse_size
from surgeon.plan import Plan, check_plan
from surgeon.rebuild import Comparison, compare, probe_tokens
from surgeon.repair import lacking_biases
from surgeon.trace import trace_module

__all__ = ["verify", "verify_folder"]


def verify(model: nn.Module, small: nn.Module, plan: Plan, tokens: Tensor | None = None) -> Comparison:
    """Compare `small` in float64 with `model` masked as `plan` says.

    Args:
        model: the original.
        small: what `surgeon.apply` made of it.
        plan: what lies between them.
        tokens: input ids [rows, length]; by default random ones.

    Raises:
        VerifyError: the outputs cannot be compared. A difference is for the caller to judge: `ok`, `require`.
    """
    model, graph = with_biases_of(plan, model)
    check_plan(plan, graph)
    return compare(model, small, plan, graph, probe_tokens(model) if tokens is None else tokens)


def verify_folder(
    folder: str | Path,
    model: str | Path,
    *,
    memory: str | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[Comparison, tuple[str, ...]]:
    """Compare a folder that surgeon wrote with the model that it was made from, and reload it.

    Raises:
        VerifyError: they differ, or stock transformers does not load the folder.
        PlanError: the folder was made from another model.
    """
    budget = None if memory is None else parse_size(memory)
    subject, result = Subject(model, device), Subject(folder, device)
    file = Path(folder) / "plan.json"
    to_planned_family(subject, read_plan(file))
    progress("trace", 0, None)
    graph = trace_module(subject.structure)
    if subject.add_biases(lacking_biases(read_plan(file), graph)):
        graph = trace_module(subject.structure)
    plan = read_plan(file, graph)
    same_model(plan, subject)
    progress(COMPARE, 0, None)
    original, small = subject.unread, result.unread
    with explained(COMPARE):
        comparison = compare(original, small, plan, graph, probe_tokens(original)).require()
    progress(RELOAD, 0, None)
    resident = room_for(small, budget)
    with explained(RELOAD):
        checks = check_reload(Path(folder), small, comparison.tolerance, resident, original=original)
    return comparison, (in_words(comparison), *checks)
