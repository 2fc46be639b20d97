"""The Plan as a JSON document, versioned: what ``plan.json`` holds.

Strict in reading: an unknown key or version is an error. `cuts` repeat, for readers without the
Graph, what follows from the Keep edits; `plan_from_document` checks them where a Graph is given.
Computed tensors are not here: `values` only names the file beside the document that holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from surgeon.errors import InputError
from surgeon.graph import Graph
from surgeon.graph.strict import Strict, read_document
from surgeon.plan.check import check_plan
from surgeon.plan.cuts import cuts_of
from surgeon.plan.edits import Assign, DropBlock, Edit, Keep
from surgeon.plan.plan import Plan

__all__ = ["PLAN_VERSION", "plan_document", "plan_from_document"]

PLAN_VERSION = 1


class _Keep(Strict):
    edit: Literal["keep"]
    step: int
    axis: str
    indices: tuple[int, ...]

    def to_edit(self) -> Edit:
        return Keep(self.axis, self.indices, self.step)


class _DropBlock(Strict):
    edit: Literal["drop_block"]
    step: int
    block: str

    def to_edit(self) -> Edit:
        return DropBlock(self.block, self.step)


class _Assign(Strict):
    edit: Literal["assign"]
    step: int
    param: str
    fn: str
    args: dict[str, JsonValue]

    def to_edit(self) -> Edit:
        return Assign(self.param, self.fn, self.args, self.step)


class _Model(Strict):
    type: str
    fingerprint: str | None


class _Document(Strict):
    surgeon_plan: Literal[1]
    model: _Model
    edits: tuple[Annotated[_Keep | _DropBlock | _Assign, Field(discriminator="edit")], ...]
    cuts: dict[str, dict[str, tuple[int, ...]]]
    dropped: tuple[str, ...]
    values: Annotated[str, Field(pattern=r"^[^/\\]+\.safetensors$")] | None


def plan_document(plan: Plan, graph: Graph, values: str | None = None) -> dict[str, Any]:
    """A dict of plain JSON values; `values` is the name of the file with the computed tensors."""
    cuts = cuts_of(plan, graph)
    return {
        "surgeon_plan": PLAN_VERSION,
        "model": {"type": plan.model_type, "fingerprint": plan.fingerprint},
        "edits": [_edit(edit) for edit in plan.edits],
        "cuts": {
            param: {str(dim): kept.tolist() for dim, kept in sorted(dims.items())}
            for param, dims in cuts.items()
        },
        "dropped": list(plan.dropped),
        "values": values if plan.assigned else None,
    }


def plan_from_document(
    document: object, graph: Graph | None = None, values: Mapping[str, object] | None = None
) -> Plan:
    """The Plan that a document of `plan_document` says.

    Args:
        document: the parsed JSON.
        graph: where given, the Plan must be one that it can take, with the cuts that the document lists.
        values: tensors of the Assign edits by parameter name, from the file that ``values`` names.

    Raises:
        InputError: another version, an unknown key, a wrong type, or cuts that do not fit.
        PlanError: edits that contradict each other, or that `graph` cannot take.
    """
    read = _read(document)
    plan = Plan(read.model.type, (), read.model.fingerprint)
    plan = plan.add((edit.to_edit() for edit in read.edits), values)
    if tuple(plan.dropped) != read.dropped:
        raise InputError(f"plan: 'dropped' lists {list(read.dropped)}, the edits drop {list(plan.dropped)}")
    if graph is not None:
        check_plan(plan, graph)
        _check_cuts(read, plan, graph)
    return plan


def _edit(edit: Edit) -> dict[str, Any]:
    match edit:
        case Keep():
            return {"edit": "keep", "step": edit.step, "axis": edit.axis, "indices": list(edit.indices)}
        case DropBlock():
            return {"edit": "drop_block", "step": edit.step, "block": edit.block}
        case Assign():
            args = dict(edit.args)
            return {"edit": "assign", "step": edit.step, "param": edit.param, "fn": edit.fn, "args": args}


def _read(document: object) -> _Document:
    version = document.get("surgeon_plan") if isinstance(document, Mapping) else None
    if version is None:
        raise InputError("this is not a plan: it has no key 'surgeon_plan'", hint="a plan.json of surgeon")
    if version != PLAN_VERSION:
        raise InputError(
            f"the plan has version {version}, this surgeon reads version {PLAN_VERSION}",
            hint="make the plan again, or use the surgeon that made it",
        )
    return read_document(_Document, document, "plan")


def _check_cuts(read: _Document, plan: Plan, graph: Graph) -> None:
    made = plan_document(plan, graph)["cuts"]
    said = {p: {dim: list(kept) for dim, kept in dims.items()} for p, dims in read.cuts.items()}
    wrong = sorted(param for param in made.keys() | said.keys() if made.get(param) != said.get(param))
    if wrong:
        raise InputError(
            f"the plan's cuts of {len(wrong)} parameters (first: {wrong[0]}) are not those of its edits on "
            "this model",
            hint="the plan was edited by hand, or made for another model; make it again",
        )
