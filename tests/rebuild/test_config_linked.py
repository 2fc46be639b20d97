"""Fields that validators link: no other value of one alone, but of two together."""

from __future__ import annotations

import pytest
import torch
from transformers import Mamba2Config

from surgeon.plan import Keep, Plan
from surgeon.rebuild.config_limits import ConfigLimits
from tests.rebuild.config_cases import TOKENS, probed_config, proven


@pytest.fixture(scope="module")
def state_space():
    # The class demands hidden_size * expand == num_heads * head_dim: 24 * 2 == 6 * 8.
    config = Mamba2Config(
        hidden_size=24,
        expand=2,
        num_heads=6,
        head_dim=8,
        state_size=10,
        n_groups=2,
        num_hidden_layers=2,
        vocab_size=50,
        chunk_size=4,
    )
    return probed_config(config)


def some_groups(graph, groups, count):
    """A Plan that keeps `count` groups of heads: the Axes of that size that reach the heads' decay."""
    found = (g for g in graph.groups if g.size == groups and any(s.param.endswith("A_log") for s in g.sites))
    return Plan(graph.model_type, tuple(Keep(g.name, tuple(range(1, count + 1)), 0) for g in found))


def test_heads_that_nobody_can_change_alone_are_found(state_space):
    _, _, space = state_space
    moved = {f.name: {name.rpartition(".")[2] for name, _ in f.dims} for f in space.fields}
    assert {"A_log", "D", "dt_bias"} <= moved["num_heads"]
    assert "expand" in moved


def test_half_of_the_heads_and_half_of_the_expansion(state_space):
    module, graph, space = state_space
    plan = some_groups(graph, 2, 1)
    assert len(plan.edits) == 2
    assert ConfigLimits(space, graph).nearest(tuple(plan.kept()), 1, {}) == (1,)
    _, ledger = proven(module, plan, graph, space)
    assert {(row.field, row.old, row.new) for row in ledger} == {
        ("num_heads", 6, 3),
        ("expand", 2, 1),
        ("n_groups", 2, 1),
    }


def test_equal_counts_of_heads_and_states_are_told_apart_per_layer():
    config = Mamba2Config(
        hidden_size=16,
        expand=2,
        num_heads=8,
        head_dim=4,
        state_size=8,
        n_groups=4,
        num_hidden_layers=2,
        vocab_size=50,
        chunk_size=4,
    )
    module, graph, space = probed_config(config)
    plan = some_groups(graph, 4, 3)
    small, _ = proven(module, plan, graph, space, "per_layer")
    mixer = small.get_submodule("backbone.layers.0.mixer")
    assert (mixer.num_heads, mixer.ssm_state_size) == (6, 8)
    assert torch.isfinite(small(TOKENS).logits).all()
