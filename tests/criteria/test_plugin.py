"""The example criterion, as a user loads it, on a grouped-query model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surgeon.calibrate import Statistics
from surgeon.criteria import criteria, trainable
from surgeon.operations.remove import Remove
from surgeon.operations.state import State
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource
from surgeon.registry import load_plugin
from tests.handmade import llama_graph


@pytest.fixture
def peak(repo):
    path = repo / "examples" / "plugins" / "peak.py"
    assert len(path.read_text().splitlines()) < 60
    load_plugin(path)
    return criteria.get("peak")


def test_a_plugin_criterion_scores_and_cuts(peak, small_llama):
    model = small_llama()
    graph, source = llama_graph(model.config), ModuleSource(model)
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[5, 17] = 100
    group = trainable(graph.group("layers.2.mlp.ffn"), graph)
    scores = peak(reduce="max").score(group, source, Statistics()).values
    at = model.model.layers[2].mlp
    rows = torch.stack([at.gate_proj.weight, at.up_proj.weight, at.down_proj.weight.T]).abs()
    np.testing.assert_allclose(scores, rows.amax((0, 2)).detach(), rtol=1e-6)
    step = Remove.model_validate(
        {"op": "remove", "select": {"kind": ["ffn", "kv_group"]}, "keep": {"count": 1}, "criterion": "peak"}
    )
    after, _ = step.run(State(graph, Plan("llama"), source=source))
    assert after.plan.kept()["layers.2.mlp.ffn"] == (17,)
