"""plan.json and report.json: what is written is read again, and nothing else is."""

from __future__ import annotations

import json

import pytest

from surgeon.errors import ConflictError, InfeasibleError, InputError
from surgeon.plan import (
    Assign,
    Choice,
    Cost,
    DropBlock,
    Keep,
    LedgerRow,
    Plan,
    Refused,
    Report,
    StepRecord,
    plan_document,
    plan_from_document,
)
from tests.conftest import llama_config
from tests.handmade import llama_graph

GRAPH = llama_graph(llama_config())
PLAN = Plan(
    "llama",
    (
        Keep("layers.0.mlp.ffn", (0, 2, 3), 0),
        DropBlock("model.layers.1", 1),
        Assign("model.norm.weight", "scale", {"by": [1, 2.5, "x", None]}, 2),
    ),
    "sha256:00",
)


KEEP = {"edit": "keep", "step": 0, "axis": "layers.0.mlp.ffn", "indices": [0, 2, 3]}


def document(**changes: object) -> dict:
    made = json.loads(json.dumps(plan_document(PLAN, GRAPH, "plan.safetensors")))
    return {**made, **changes}


def test_the_form_is_that_of_the_design():
    assert document() == {
        "surgeon_plan": 1,
        "model": {"type": "llama", "fingerprint": "sha256:00"},
        "edits": [
            KEEP,
            {"edit": "drop_block", "step": 1, "block": "model.layers.1"},
            {
                "edit": "assign",
                "step": 2,
                "param": "model.norm.weight",
                "fn": "scale",
                "args": {"by": [1, 2.5, "x", None]},
            },
        ],
        "cuts": {
            "model.layers.0.mlp.gate_proj.weight": {"0": [0, 2, 3]},
            "model.layers.0.mlp.up_proj.weight": {"0": [0, 2, 3]},
            "model.layers.0.mlp.down_proj.weight": {"1": [0, 2, 3]},
        },
        "dropped": ["model.layers.1"],
        "values": "plan.safetensors",
    }


def test_read_again():
    values = {"model.norm.weight": object()}
    read = plan_from_document(document(), GRAPH, values)
    assert read == PLAN
    assert read.fingerprint == PLAN.fingerprint
    assert read.values == values


def test_no_computed_tensors_no_file():
    assert plan_document(Plan("llama"), GRAPH, "plan.safetensors")["values"] is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "no key 'surgeon_plan'"),
        ([1], "no key 'surgeon_plan'"),
        (document(surgeon_plan=2), "version 2, this surgeon reads version 1"),
        (document(extra=1), "extra: Extra inputs"),
        (document(dropped="x"), "dropped: Input should be a valid array"),
        (document(values="../../etc/x.safetensors"), "values: String should match"),
        (document(edits=[{"edit": "cut"}]), "edits.0: Input tag 'cut'"),
        (document(edits=[{**KEEP, "indices": [0.5]}]), "edits.0.keep.indices.0"),
        (document(edits=[{**KEEP, "indices": [0, 99]}], dropped=[]), "indices [99] are outside of 0 to 39"),
        (document(dropped=[]), "'dropped' lists"),
        (document(cuts={}), "cuts of 3 parameters"),
    ],
)
def test_anything_else_is_refused(bad, message):
    with pytest.raises((InputError, InfeasibleError)) as caught:
        plan_from_document(bad, GRAPH)
    assert message in str(caught.value)


def test_contradicting_edits_are_found_in_reading():
    edits = [
        {"edit": "keep", "step": 0, "axis": "layers.0.mlp.ffn", "indices": [0, 1]},
        {"edit": "keep", "step": 1, "axis": "layers.0.mlp.ffn", "indices": [1, 2]},
    ]
    with pytest.raises(ConflictError, match=r"step 1 keeps 1 indices .* that step 0 removed"):
        plan_from_document(document(edits=edits))


REPORT = Report(
    model="m",
    before=Cost(parameters=10, bytes=20, kv_cache_bytes_per_token=4),
    after=Cost(parameters=5),
    steps=(
        StepRecord(
            step=0,
            op="remove",
            options={"keep": {"fraction": 0.5}},
            choices=(Choice(axis="a", size=4, kept=2, requested=3, why="divisible"),),
            refused=(Refused(axis="b", reason="locked"),),
            notes=("n",),
        ),
    ),
    ledger=(LedgerRow(field="heads", old=None, new=4, why="shape"),),
    warnings=("w",),
    measured={"verify": {"max_abs": 0.0}},
)


def test_a_report_is_read_again():
    assert Report.from_dict(json.loads(json.dumps(REPORT.to_dict()))) == REPORT


def test_a_wrong_report_is_refused():
    with pytest.raises(InputError, match="report cannot be read") as caught:
        Report.from_dict({**REPORT.to_dict(), "model": 3, "colour": "red"})
    assert "model: Input should be a valid string" in str(caught.value)
    assert "colour: Extra inputs" in str(caught.value)
