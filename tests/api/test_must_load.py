"""What other loaders take bounds every allocation, whatever the layout on disk."""

from __future__ import annotations

import pytest
import torch

import surgeon
from surgeon.operations import allocations

IDS = torch.randint(3, 53, (8, 12), generator=torch.Generator().manual_seed(1))
OPTIONS = {
    "profile": {"removes": [1, 3]},
    "logistic": {"skip_first": 0, "skip_last": 0},
    "by_similarity": {"amplitude": 0.3},
    "adaptive": {"structure": "al_mm"},
}


def planned(model, name, **export):
    step = {
        "op": "remove",
        "select": {"kind": ["ffn", "kv_group"]},
        "keep": {"fraction": 0.7},
        "criterion": "obs",
        "allocation": {"allocation": name, **OPTIONS.get(name, {})},
    }
    recipe = {
        "surgeon": 1,
        "calibration": {"texts": "unread.txt", "samples": 8, "seq_len": 12},
        "steps": [step],
        "export": export,
    }
    kept = surgeon.plan(model, recipe, texts=[IDS]).kept()
    return [len(kept.get(f"layers.{layer}.mlp.ffn", range(40))) for layer in range(3)]


@pytest.mark.parametrize("name", allocations.names())
def test_one_width_where_others_must_load_it(small_llama, name):
    model = small_llama(initializer_range=0.3)
    bound = planned(model, name, layout="per_layer", must_load=["transformers", "vllm"])
    assert len(set(bound)) == 1
    assert bound[0] < 40
    free = planned(model, name, layout="per_layer")
    if name != "uniform":
        assert len(set(free)) > 1
