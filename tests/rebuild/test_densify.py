"""Mixtures made dense: the config that holds the result, and the result against a fixed routing by hand."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch.nn import functional as F

from surgeon.errors import InfeasibleError
from surgeon.rebuild.dense_config import Mixtures, dense_config
from surgeon.rebuild.densify import Fixed, densified, inner_of, plain_mixture
from surgeon.rebuild.skeleton import skeleton
from surgeon.trace import trace_module
from tests.rebuild.routed import CONFIGS, routed

FLAGGED, MIXTRAL = "softmax, renormalised by a flag", "softmax, renormalised"


def mixtures(graph):
    groups = graph.of_kind("expert")
    return Mixtures(frozenset(n for g in groups for n in plain_mixture(graph, g)), 2, 24)


@pytest.mark.parametrize(("name", "to"), [(FLAGGED, None), (MIXTRAL, "mistral")])
def test_dense_model_is_the_fixed_routing(name, to):
    """Layer by layer: the new sublayer gives the sum of the chosen experts' outputs under these gates."""
    model, graph = routed(name)
    groups = graph.of_kind("expert")
    config = dense_config(model.config, mixtures(graph), 2 * inner_of(graph, groups[0]).size, to)
    layers = [Fixed(group.name, (1, 3), (0.625, 0.5)) for group in groups]
    dense = densified(model, graph, layers, config, trace_module(skeleton(config)))
    assert dense.config.model_type == (to or model.config.model_type)
    assert not [n for n, p in dense.named_parameters() if p.ndim > 2]
    x = torch.randn(5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for group, block in zip(groups, dense.model.layers, strict=True):
        experts = model.get_submodule(group.sublayer).experts
        want = torch.zeros_like(x)
        for expert, gate in ((1, 0.625), (3, 0.5)):
            one, other = (x @ experts.gate_up_proj[expert].double().T).chunk(2, -1)
            want += gate * (F.silu(one) * other) @ experts.down_proj[expert].double().T
        torch.testing.assert_close(block.mlp.double()(x), want)


def test_a_family_that_cannot_hold_it_is_refused_with_what_is_lacking():
    config = CONFIGS[FLAGGED]()
    graph = trace_module(skeleton(config))
    with pytest.raises(InfeasibleError, match=r"no config of type 'llama' builds .*q_norm"):
        dense_config(config, mixtures(graph), 28, "llama")
    with pytest.raises(InfeasibleError, match="transformers has no language model of type 'nobody'"):
        dense_config(config, mixtures(graph), 28, "nobody")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("softmax of the chosen, biased", "gate_up_proj_bias"),
        ("sigmoid, corrected, one group", "shared_experts"),
    ],
)
def test_a_mixture_that_is_more_is_refused(name, what):
    graph = trace_module(skeleton(CONFIGS[name]()))
    with pytest.raises(InfeasibleError, match=f"more than matrices of experts and a router.*{what}"):
        plain_mixture(graph, graph.of_kind("expert")[0])


def test_another_function_is_refused():
    """A family of the same tensors and another activation."""
    model, graph = routed(MIXTRAL)
    groups = graph.of_kind("expert")
    config = dense_config(model.config, mixtures(graph), 20, "mistral")
    config.hidden_act = "gelu"
    layers = [Fixed(group.name, (1,), (1.0,)) for group in groups]
    with pytest.raises(InfeasibleError, match="but it computes something else: logits differ by"):
        densified(model, graph, layers, config, trace_module(skeleton(config)))


def test_experts_that_are_not_told_whom_to_serve_are_refused():
    model, graph = routed("all experts run, gates on their inputs")
    group = graph.of_kind("expert")[0]
    layers = [Fixed(group.name, (1,), (1.0,))]
    with pytest.raises(InfeasibleError, match="is not told which experts a token goes to"):
        densified(model, graph, layers, hf.LlamaConfig(), graph)
