from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from surgeon.calibrate import rows
from surgeon.operations.collapse import Collapse
from surgeon.rebuild import apply_plan, compare, probe_tokens
from tests.operations.depth import model_of, samples_of, state_of


def collapse(**options) -> Collapse:
    return Collapse.model_validate({"op": "collapse", **options})


def sha(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().float().contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize(("name", "size", "threshold"), [("C2_T0.85", 2, 0.85), ("C3_T0.8", 3, 0.8)])
def test_replace_by_last_is_the_released_code(shared_data, name, size, threshold):
    reference = shared_data / "reference"
    dump = json.loads((reference / f"laco_tiny_{name}.json").read_text())
    module = AutoModelForCausalLM.from_pretrained(reference / "tiny-llama", dtype=torch.float32)
    ids = load_file(reference / "ids-laco.safetensors")["input_ids"]
    found = state_of(module, rows(ids.tolist()), limited=False)
    after, record = collapse(size=size, threshold=threshold, mode="replace_by_last").run(found)
    tried = [note for note in record.notes if "similarity" in note]
    assert len(tried) == len(dump["steps"])
    for note, step in zip(tried, dump["steps"], strict=True):
        assert float(note.split("similarity ")[1].split(",")[0]) == pytest.approx(step["mean_sim"], abs=1e-4)
        assert note.endswith("accepted" if step["accepted"] else "rejected")
    assert 8 - len(after.plan.dropped) == dump["final_layers"]
    if after.plan.dropped:
        small, _ = apply_plan(module, after.plan, found.graph)
        got = {key: sha(value) for key, value in small.named_parameters() if key in dump["projections"]}
        assert got == dump["projections"]


@pytest.mark.parametrize("norms", ["keep_first", "difference_sum"])
def test_difference_sum_is_the_formula(norms):
    module = model_of("dense")
    found = state_of(module, limited=False)
    step = collapse(size=3, threshold=-1.0, low=2, merge_norms=norms)
    after, record = step.run(found)
    assert after.plan.dropped == ("model.layers.3", "model.layers.4")
    assert [c.why for c in record.choices][2:5] == [
        "others fold into it",
        "folded into model.layers.2",
        "folded into model.layers.2",
    ]
    tensors = {name: value.detach().numpy() for name, value in module.named_parameters()}
    for name, value in tensors.items():
        if name.startswith("model.layers.2."):
            tail = name.removeprefix("model.layers.2")
            want = value + sum(tensors[f"model.layers.{k}{tail}"] - value for k in (3, 4))
            if value.ndim == 1 and norms == "keep_first":
                want = value
            got = after.plan.values.get(name, torch.from_numpy(value))
            np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dense", "encoder", "moe"])
def test_the_cut_is_the_original_with_those_weights_in_place(name):
    module = model_of(name)
    found = state_of(module)
    low = {"moe": 2}.get(name, 0)
    after, _ = collapse(size=2, threshold=-1.0, interval=2, low=low).run(found)
    assert after.plan.dropped
    assert after.plan.assigned
    small, _ = apply_plan(module, after.plan, found.graph)
    assert compare(module, small, after.plan, found.graph, probe_tokens(module)).require()


def test_blocks_that_are_not_alike_are_left_alone():
    found = state_of(model_of("moe"), limited=False)
    _, record = collapse(size=2, threshold=0.99).run(found)
    assert any("are not alike" in refused.reason for refused in record.refused)


def test_nothing_is_folded_above_an_unreachable_threshold():
    found = state_of(model_of("dense"), limited=False)
    after, record = collapse(size=2, threshold=1.0, probe=2).run(found)
    assert after.plan == found.plan
    assert all(note.endswith("rejected") for note in record.notes)


def test_folds_can_be_repaired():
    module = model_of("dense")
    found = state_of(module, samples_of(89, 9), limited=False)
    after, record = collapse(size=2, threshold=-1.0, low=3, repair="refit").run(found)
    assert record.notes[-1] == "1 of 1 gaps bridged"
    plain, _ = collapse(size=2, threshold=-1.0, low=3).run(found)
    name = "model.layers.3.mlp.down_proj.weight"
    assert after.plan.dropped == plain.plan.dropped
    assert not torch.equal(after.plan.values[name], plain.plan.values[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1, "threshold": 0.5}, "greater than or equal to 2"),
        ({"size": 2, "threshold": 0.5, "select": {"blocks": "1:"}}, "works on a whole stack"),
        ({"size": 2, "threshold": 0.5, "repair": "bias"}, "mends projections that lost inputs"),
    ],
)
def test_contradicting_options(options, message):
    with pytest.raises(ValidationError, match=message):
        collapse(**options)
