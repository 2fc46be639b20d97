"""One small module per rule family: expected Sites, the symmetry proof, and what must be locked.

Every coupling is also checked from the other side: leave any one Site out and the proof fails.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from surgeon.errors import TraceError, UnsupportedOpError
from surgeon.rebuild.symmetry import prove
from surgeon.trace import trace_module
from tests.trace.dump import site_text
from tests.trace.rule_tables import COUPLED, LOCKED, STRUCTURE
from tests.trace.toys import IDS, VOCAB, toy


def traced(name, table, **options):
    body, parts, expected = table[name]
    module = toy(body, **parts)
    return module, trace_module(module, inputs={"input_ids": IDS}, **options), expected


def proofs_of(module, graph, groups=None):
    ids = torch.randint(VOCAB, IDS.shape, generator=torch.Generator().manual_seed(0))
    return prove(module, graph, groups, tokens=ids)


def sites(group):
    return frozenset(site_text(site) for site in group.sites)


@pytest.mark.parametrize("name", COUPLED)
def test_a_coupling_has_exactly_the_expected_sites(name):
    _, graph, expected = traced(name, COUPLED, strict=True)
    found = {sites(group): group for group in graph.groups}
    for wanted in map(frozenset, expected):
        assert wanted in found, "\n".join(" | ".join(sorted(some)) for some in found)
        assert found[wanted].locked is None
    assert graph.notes == ()


@pytest.mark.parametrize("name", COUPLED)
def test_a_coupling_is_a_symmetry_and_no_site_is_superfluous(name):
    module, graph, expected = traced(name, COUPLED)
    proofs = proofs_of(module, graph)
    assert [proof for proof in proofs if not proof.passed] == []
    mine = [group for group in graph.groups if sites(group) in map(frozenset, expected)]
    short = [
        replace(group, sites=group.sites[:place] + group.sites[place + 1 :])
        for group in mine
        for place in range(len(group.sites))
    ]
    passed = [proof.passed for proof in proofs_of(module, graph, short)]
    assert [group.sites for group, fine in zip(short, passed, strict=True) if fine] == []


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_factor_taken_apart_index_by_index_makes_no_group(name):
    module, graph, _ = traced(name, STRUCTURE)
    assert 2 not in {group.size for group in graph.groups}
    assert [proof for proof in proofs_of(module, graph) if not proof.passed] == []
    assert any(group.size == 12 for group in graph.groups)


@pytest.mark.parametrize("name", LOCKED)
def test_what_must_not_be_cut_is_locked_and_the_rest_is_still_a_symmetry(name):
    module, graph, reason = traced(name, LOCKED)
    locked = [group.locked for group in graph.groups if group.locked]
    assert any(re.search(reason, text) for text in locked), locked
    assert graph.group("vocab").locked is None
    assert [proof for proof in proofs_of(module, graph) if not proof.passed] == []


def test_an_op_without_a_rule_is_noted_and_the_trace_goes_on():
    class Inner(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x.mT @ x).sum()

    module = toy(lambda t, x: x * t.inner(x), inner=Inner)
    graph = trace_module(module, inputs={"input_ids": IDS})
    assert graph.notes == ("no rule for aten._linalg_eigh, met in inner: what it touches is locked",)
    reasons = {site.param: group.locked for group in graph.groups for site in group.sites if site.dim == 0}
    assert "an op without a rule (aten._linalg_eigh in inner)" in (reasons["up.bias"] or "")
    assert reasons["out.weight"] is None


def test_strict_names_the_op_and_the_file_to_add():
    module = toy(lambda t, x: x * torch.linalg.eigvalsh(x.mT @ x).sum())
    with pytest.raises(UnsupportedOpError, match=r"no rule for aten\._linalg_eigh in the model") as caught:
        trace_module(module, inputs={"input_ids": IDS}, strict=True)
    assert "[5, 24, 24]" in caught.value.message
    assert "add surgeon/trace/rules/linalg_eigh.py" in (caught.value.hint or "")


def test_a_failing_forward_says_where_and_why():
    class Inner(nn.Module):
        def forward(self, x):
            raise ValueError("no such thing")

    module = toy(lambda t, x: t.inner(x), inner=Inner)
    with pytest.raises(
        TraceError, match=r"Toy failed in inner after \d+ ops: ValueError: no such thing"
    ) as caught:
        trace_module(module, inputs={"input_ids": IDS})
    assert "other inputs" in (caught.value.hint or "")


def test_what_fake_tensors_refuse_is_one_clear_error(caplog):
    module = toy(lambda t, x: torch.view_as_complex(x[..., :21].unflatten(-1, (7, 3))))
    with pytest.raises(TraceError, match="last dimension of size 2"):
        trace_module(module, inputs={"input_ids": IDS})
    assert caplog.records == []


def test_a_module_without_config_needs_inputs():
    with pytest.raises(TraceError, match="Toy has no config") as caught:
        trace_module(toy(lambda t, x: x))
    assert "inputs=" in (caught.value.hint or "")
