"""Weights read when they are asked for: whole, or rows of them; what no score can come of is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from surgeon.api.on_demand import OnDemand
from surgeon.errors import CheckpointError
from surgeon.operations.masked_weights import MaskedWeights
from surgeon.plan import Keep, Plan
from surgeon.rebuild import ModuleSource
from surgeon.rebuild.lazy import Stored
from surgeon.rebuild.unread import Unread
from tests.conftest import llama_config
from tests.handmade import llama_graph


def source(**tensors):
    """A module whose tensors are read on demand, and a list of what was read of dim 0."""
    module, read = nn.Module(), []
    for name, tensor in tensors.items():

        def part(dims, tensor=tensor):
            read.append(len(dims.get(0, tensor)))
            for dim, kept in dims.items():
                tensor = tensor.index_select(dim, torch.from_numpy(np.asarray(kept)))
            return tensor

        stored = Stored(name, tensor.shape, tensor.dtype, part)
        module.register_buffer(name, Unread(stored))
    return OnDemand(module, "the model"), read


def test_no_more_is_read_than_asked_for():
    w = torch.randn(6, 4)
    weights, read = source(w=w)
    assert torch.equal(weights.rows("w", 2, 5), w[2:5])
    assert torch.equal(weights.get("w"), w)
    assert weights.shape("w") == (6, 4)
    assert read == [3, 6]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(dtype, bad):
    w = torch.ones(4, 3, dtype=dtype)
    w[2, 1] = bad
    weights, _ = source(w=w)
    with pytest.raises(CheckpointError, match=r"the weights in the model hold NaN or infinite.*'w' first"):
        weights.get("w")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        weights.rows("w", 2, 3)
    assert torch.equal(weights.rows("w", 0, 2), w[:2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_weights_whose_sum_overflows_are_finite(dtype):
    w = torch.full((64, 64), torch.finfo(dtype).max, dtype=dtype)
    weights, _ = source(w=w)
    assert torch.equal(weights.get("w"), w)


def test_rows_of_masked_weights_are_those_of_the_whole():
    module = LlamaForCausalLM(llama_config())
    graph, names = llama_graph(module.config), [f"model.layers.0.mlp.{p}_proj.weight" for p in ("up", "down")]
    tensors = {name: module.get_parameter(name).detach() for name in names}
    kept = np.array([0, 2, 3, 7, 11])
    plan = Plan(graph.model_type, (Keep(axis="layers.0.mlp.ffn", step=0, indices=tuple(kept.tolist())),))
    weights = MaskedWeights(ModuleSource(module), plan, graph)
    for dim, name in enumerate(names):
        want = torch.zeros_like(tensors[name])
        want.index_copy_(dim, torch.from_numpy(kept), tensors[name].index_select(dim, torch.from_numpy(kept)))
        assert torch.equal(weights.get(name), want)
        size = len(want)
        found = [weights.rows(name, at, min(at + 5, size)) for at in range(0, size, 5)]
        assert torch.equal(torch.cat(found), want)
