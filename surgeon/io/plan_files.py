"""A Plan on disk: ``plan.json``, and the tensors that it assigns in a safetensors file beside it.

Not here: what the document says (`surgeon.plan.document`), and the tensors (`plan_values`), which are read
and written by torch where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from surgeon.errors import InputError
from surgeon.graph import Graph
from surgeon.io.documents import read_document, write_document
from surgeon.plan import Plan
from surgeon.plan.document import plan_document, plan_from_document

__all__ = ["read_plan", "write_plan"]


def write_plan(plan: Plan, graph: Graph, path: str | Path) -> None:
    """Write `plan` to `path`, and the tensors that it assigns beside it, under the same stem.

    An earlier plan there is removed before its tensors are, so that a plan never lies beside others' tensors.

    Raises:
        InputError: a file cannot be written.
    """
    file = Path(path).expanduser()
    beside = file.with_suffix(".safetensors")
    if plan.values:
        from surgeon.io.plan_values import write_values

        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{file} cannot be written: {error.strerror}") from error
        write_values(plan.values, beside)  # type: ignore[arg-type]  # plans know no torch
    write_document(plan_document(plan, graph, beside.name if plan.values else None), file)


def read_plan(path: str | Path, graph: Graph | None = None) -> Plan:
    """The Plan in `path`, with the tensors that it assigns, each read at each use.

    Args:
        path: a ``plan.json``.
        graph: where given, the document's cuts must be those of its edits on this Graph.

    Raises:
        InputError: no plan, another version, or its tensors are missing or not those that it assigns.
    """
    file = Path(path).expanduser()
    document = read_document(file)
    values: Mapping[str, object] = {}
    name = document.get("values") if isinstance(document, dict) else None
    if isinstance(name, str) and Path(name).name == name:
        from surgeon.io.plan_values import read_values

        values = read_values(file, file.with_name(name))
    plan = plan_from_document(document, graph, values)
    if set(plan.assigned) != set(values):
        different = sorted(set(plan.assigned) ^ set(values))
        raise InputError(f"{file} and its tensors disagree on what is assigned: {', '.join(different[:5])}")
    return plan
