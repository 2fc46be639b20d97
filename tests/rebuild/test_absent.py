"""A model without some experts computes what the original does when its router passes over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from surgeon.errors import RebuildError
from surgeon.plan import Keep, Plan
from surgeon.rebuild import ModuleSource, load_into, masked, probe_tokens, rebuild
from surgeon.rebuild.absent import Absent
from surgeon.rebuild.forward import call_with
from surgeon.rebuild.verify import compare
from tests.rebuild.routed import CONFIGS, routed, smaller


def some(graph, fewer, kind="expert", seed=0):
    rng = np.random.default_rng(seed)
    axes = [g for g in graph.groups if g.kind == kind and g.block and any(s.role == "index" for s in g.sites)]
    axes = axes or [g for g in graph.of_kind(kind) if g.block]
    chosen = [(g.name, rng.choice(g.size, g.size - fewer, replace=False)) for g in axes]
    return Plan(graph.model_type).add([Keep(n, tuple(sorted(c.tolist())), 0) for n, c in chosen])


def built(name, model, plan, graph, fewer, **fields):
    blank = smaller(name, fewer, **fields)
    return load_into(blank, rebuild(ModuleSource(model), plan, graph)).double().eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_rebuilt_equals_passed_over(name):
    model, graph = routed(name)
    fewer = 1 if "groups" in name else 2
    plan = some(graph, fewer)
    small = built(name, model, plan, graph, fewer * (3 if "groups" in name else 1))
    comparison = compare(model, small, plan, graph, probe_tokens(model)).require()
    assert comparison.largest > 0.1


@pytest.mark.parametrize("name", ["softmax, groups by their best", "sigmoid, groups by their two best"])
def test_whole_groups_go(name):
    model, graph = routed(name)
    outer = [g for g in graph.of_kind("channel") if any(s.role == "index" for s in g.sites)]
    plan = Plan(graph.model_type).add([Keep(group.name, (0, 2), 0) for group in outer])
    small = built(name, model, plan, graph, 5, n_group=2)
    compare(model, small, plan, graph, probe_tokens(model)).require()


def test_top_k_of_fewer_than_k_takes_what_is_left():
    name = "softmax of the chosen, biased"
    model, graph = routed(name)
    plan = some(graph, 5)
    small = built(name, model, plan, graph, 5, num_experts_per_tok=2)
    compare(model, small, plan, graph, probe_tokens(model)).require()


def test_zero_would_not_do():
    """Zero in the place of router rows gives other logits: the mask is needed."""
    model, graph = routed("softmax, renormalised")
    plan = some(graph, 2)
    ids = probe_tokens(model)
    view = masked(model, plan, graph)
    with torch.no_grad():
        zeroed = call_with(model, view.tensors(), input_ids=ids).logits
        right = view(input_ids=ids).logits
    assert (zeroed - right).abs().max() > 1e-2 * right.abs().max()


def test_gradients_are_those_of_the_small_model():
    model, graph = routed("sigmoid, corrected, one group")
    plan = some(graph, 2)
    kept = plan.kept()
    ids = probe_tokens(model)
    small = built("sigmoid, corrected, one group", model, plan, graph, 2)
    masked(model, plan, graph)(input_ids=ids).logits.square().mean().backward()
    call_with(small, {}, input_ids=ids).logits.square().mean().backward()
    own, theirs = dict(model.named_parameters()), dict(small.named_parameters())
    for axis, indices in kept.items():
        for site in graph.group(axis).sites:
            if site.param in theirs:
                got = own[site.param].grad.index_select(site.dim, torch.tensor(indices))
                want = theirs[site.param].grad
                assert (got - want).abs().max() <= 1e-5 * want.abs().max()


class TestRules:
    """Each rule against the same function on what is left."""

    X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    KEPT = torch.tensor([0, 2, 3, 5])

    def absent(self):
        x = self.X.clone()
        gone = torch.ones(6, dtype=torch.bool).index_fill(0, self.KEPT, False)
        return x, Absent([(x, gone.expand(5, 6))])

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x.sigmoid().sum(-1),
            lambda x: F.softmax(x, -1).amax(-1),
            lambda x: F.log_softmax(x, -1).max(-1).values,
            lambda x: (x * 2 + 1).mean(-1),
            lambda x: x.exp().logsumexp(-1),
            lambda x: x.unsqueeze(0).expand(2, -1, -1).reshape(10, -1).cumsum(-1)[:, -1],
            lambda x: torch.topk(x, 3, dim=-1)[0],
            lambda x: x.sort(-1).values[:, :4],
            lambda x: torch.cat([x, x], -1).sum(-1),
            lambda x: torch.where(x > 0, x, 0.0).sum(),
            lambda x: (x > 0).float().sum(0).sum(),
            lambda x: torch.einsum("te,ue->tu", x, x),
            lambda x: torch.matmul(x.T, torch.ones(5, 2, dtype=x.dtype)).sum(0),
            lambda x: F.linear(x.new_ones(2, 5), x.T).softmax(-1).max(-1).values,
            lambda x: torch.bmm(x[None], x.T[None]),
            lambda x: torch.addmm(x.new_ones(1), x, x.T),
        ],
    )
    def test_as_on_what_is_left(self, function):
        x, mode = self.absent()
        with mode:
            got = function(x)
        torch.testing.assert_close(got, function(self.X[:, self.KEPT]))

    def test_choice_is_among_the_kept_and_no_longer_than_they_are(self):
        x, mode = self.absent()
        with mode:
            indices = torch.topk(x, 5, -1).indices
        assert indices.shape == (5, 4)
        assert set(indices.flatten().tolist()) == set(self.KEPT.tolist())

    def test_order_of_the_kept_comes_first(self):
        x, mode = self.absent()
        with mode:
            order = torch.argsort(x, -1, descending=True)
        assert set(order[:, :4].flatten().tolist()) == set(self.KEPT.tolist())

    def test_numbers_written_elsewhere_lack_nothing(self):
        x, mode = self.absent()
        with mode:
            values, indices = x.topk(2, -1)
            made = torch.zeros_like(x).scatter_(1, indices, values)
            assert not mode.gone(made).any()
            x.scatter_(1, indices, 0.0)
            assert mode.gone(x)[:, 1].all()

    def test_whole_numbers_are_ranked_too(self):
        x, mode = self.absent()
        with mode:
            best = (x * 10).round().gt(-torch.inf).max(-1).indices
        assert set(best.tolist()) <= set(self.KEPT.tolist())

    def test_a_function_without_a_rule_is_refused(self):
        x, mode = self.absent()
        with mode, pytest.raises(RebuildError, match="cannot follow removed experts through 'var'"):
            x.var(-1)
