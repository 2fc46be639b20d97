"""Counts of routed tokens, by pairs of experts and by calibration text, against the router's own choice."""

from __future__ import annotations

import pytest
import torch

from surgeon.calibrate import Samples, gather, rows
from surgeon.calibrate.expert_domains import ExpertDomains, domain_key
from surgeon.calibrate.expert_pairs import ExpertPairs
from surgeon.criteria.usage import Usage
from surgeon.errors import SurgeonError
from surgeon.rebuild import ModuleSource
from surgeon.rebuild.forward import call_with
from surgeon.recipe.texts import TextSource
from tests.rebuild.routed import routed

PLAIN = "softmax, as it is"
IDS = torch.randint(3, 61, (6, 11), generator=torch.Generator().manual_seed(0))
PARTS = {"news": rows(IDS[:4].tolist()).of("news"), "code": rows(IDS[4:].tolist()).of("code")}
SAMPLES = Samples.joined(tuple(PARTS.values()))


def measured(name, *keys, batch_size=3):
    model, graph = routed(name)
    model = model.float()
    model.set_experts_implementation("eager")
    groups = graph.of_kind("expert")
    narrow = {key: key.on(graph, groups) for key in keys}
    return model, graph, gather(model, SAMPLES, narrow.values(), batch_size=batch_size).renamed(narrow)


def chosen(model, ids):
    """For every layer, [tokens, experts] of zeros and ones, by the stock router."""
    found, blocks = [], [m for m in model.modules() if hasattr(m, "gate") and hasattr(m, "experts")]

    def hook(gate, args, output):
        index = output[2]
        found.append(torch.zeros(len(index), 9, dtype=torch.float64).scatter(1, index, 1.0))

    handles = [block.gate.register_forward_hook(hook) for block in blocks]
    with torch.no_grad():
        call_with(model, {}, input_ids=ids)
    for handle in handles:
        handle.remove()
    return found


def test_pairs_and_domains_are_those_of_the_router():
    model, _, found = measured(PLAIN, ExpertPairs(), ExpertDomains())
    for layer, given in enumerate(chosen(model, IDS)):
        outlet = f"model.layers.{layer}.mlp.experts.down_proj"
        assert torch.equal(found.get(ExpertPairs())[outlet], given.T @ given)
        first = given[: 4 * 11].sum(0)
        assert torch.equal(found.get(ExpertDomains())[domain_key(outlet, "news")], first)
        assert torch.equal(found.get(ExpertDomains())[domain_key(outlet, "code")], given.sum(0) - first)


def test_pairs_where_all_experts_run():
    _, graph, found = measured("all experts run, gates on their inputs", ExpertPairs())
    for pairs in found.get(ExpertPairs()).values():
        assert torch.equal(pairs, pairs.diagonal().diag())
        assert pairs.sum() == IDS.numel()
    assert len(found.get(ExpertPairs())) == len(graph.of_kind("expert"))


def test_usage_counts_tasks():
    model, graph, found = measured(PLAIN, ExpertDomains())
    group = graph.of_kind("expert")[0]
    given = chosen(model, IDS)[0]
    news, code = given[: 4 * 11].sum(0), given[4 * 11 :].sum(0)
    shares = torch.stack([news / news.sum(), code / code.sum()])
    for criterion, want in (
        (Usage(), shares.amax(0)),
        (Usage(over="mean"), shares.mean(0)),
        (Usage(task="code"), shares[1]),
    ):
        got = torch.from_numpy(criterion.score(group, ModuleSource(model), found).values.copy())
        torch.testing.assert_close(got, want)
    with pytest.raises(SurgeonError, match="no calibration text is called 'law'; there are code, news"):
        Usage(task="law").score(group, ModuleSource(model), found)


def test_batches_are_of_one_domain():
    batches = list(SAMPLES.unpadded(3))
    assert [(len(b), set(b.domains)) for b in batches] == [(3, {"news"}), (1, {"news"}), (2, {"code"})]
    assert torch.equal(torch.cat([b.ids for b in batches]), IDS)
    plain = Samples(SAMPLES.ids, SAMPLES.mask)
    assert [(len(b), b.domains) for b in plain.unpadded(3)] == [(3, ()), (3, ())]
    assert [b.domains for b in SAMPLES.batches(5)] == [("news",) * 4 + ("code",), ("code",)]


def test_a_text_is_called_by_its_name_or_its_file():
    assert TextSource(path="a/b/laws.en.txt").domain == "laws.en"
    assert TextSource(path="a/b/laws.txt", name="law").domain == "law"
