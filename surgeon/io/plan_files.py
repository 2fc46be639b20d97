"""A Plan on disk: ``plan.json``, and the tensors that it assigns in a safetensors file beside it.

Not here: what the document says (`surgeon.plan.document`).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from surgeon.errors import CheckpointError, InputError
from surgeon.graph import Graph
from surgeon.io.disk_layout import piece_of
from surgeon.io.disk_source import DiskTensor
from surgeon.io.documents import read_document, write_document
from surgeon.io.header import read_header
from surgeon.io.shards import write_file
from surgeon.io.slices import Files
from surgeon.plan import Plan
from surgeon.plan.document import plan_document, plan_from_document
from surgeon.rebuild.lazy import as_lazy
from surgeon.rebuild.unread import Unread

__all__ = ["read_plan", "write_plan"]


def write_plan(plan: Plan, graph: Graph, path: str | Path) -> None:
    """Write `plan` to `path`, and the tensors that it assigns beside it, under the same stem.

    An earlier plan there is removed before its tensors are, so that a plan never lies beside others' tensors.

    Raises:
        InputError: a file cannot be written.
    """
    file = Path(path).expanduser()
    values = {name: value for name, value in plan.values.items() if isinstance(value, Tensor)}
    beside = file.with_suffix(".safetensors")
    if values:
        try:
            file.unlink(missing_ok=True)
            write_file(beside, [piece_of(name, as_lazy(value)) for name, value in values.items()])
        except OSError as error:
            raise InputError(f"{beside} cannot be written: {error.strerror}") from error
    write_document(plan_document(plan, graph, beside.name if values else None), file)


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
    values: dict[str, Tensor] = {}
    name = document.get("values") if isinstance(document, dict) else None
    if isinstance(name, str) and Path(name).name == name:
        try:
            files = Files()
            stored = read_header(file.with_name(name))
            values = {name: Unread(DiskTensor(header, files)) for name, header in stored.items()}
        except CheckpointError as error:
            raise InputError(
                f"the tensors of {file} cannot be read from {file.with_name(name)}: {error.message}",
                hint=f"put {name} beside {file.name}",
            ) from error
    plan = plan_from_document(document, graph, values)
    if set(plan.assigned) != set(values):
        different = sorted(set(plan.assigned) ^ set(values))
        raise InputError(f"{file} and its tensors disagree on what is assigned: {', '.join(different[:5])}")
    return plan
