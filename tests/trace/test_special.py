"""Ids that a model compares with, or replaces by, numbers: those are indices of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surgeon.rebuild.symmetry import prove, randomised
from surgeon.trace import trace_module

VOCAB, HIDDEN = 26, 14
IDS = torch.zeros(5, 19, dtype=torch.int64)


class Reading(nn.Module):
    """Ids, treated in some way, looked up and scored."""

    def __init__(self, before):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.out = nn.Linear(HIDDEN, 7)
        self.before = before
        self.register_buffer("ends", torch.tensor([2, 20]))

    def forward(self, input_ids):
        ids, factor = self.before(self, input_ids)
        return self.out((self.embed(ids) * factor).tanh())


def where_it_is(ids, *numbers):
    return (torch.isin(ids, torch.tensor(numbers)) * 1.0 + 0.5)[..., None]


def written(ids, number, other):
    ids = ids.clone()
    ids[ids == number] = other
    return ids


def shifted(ids):
    new = ids.new_zeros(ids.shape)
    new[:, 1:] = ids[:, :-1]
    return new


WAYS = {
    "equal": (lambda t, ids: (ids, (ids == 3)[..., None] * 1.0 + 0.5), [(0, 3, False), (4, 26, False)]),
    "unequal to the first": (lambda t, ids: (ids, ids.ne(0)[..., None] * 1.0), [(1, 26, False)]),
    "the last": (lambda t, ids: (ids, (ids == 25)[..., None] * 1.0), [(0, 25, False)]),
    "below": (lambda t, ids: (ids, (ids < 20)[..., None] * 1.0), [(0, 20, False), (20, 26, False)]),
    "beyond the end": (lambda t, ids: (ids, (ids < 26)[..., None] * 1.0), [(0, 26, False)]),
    "two of them": (
        lambda t, ids: (ids, where_it_is(ids, 3, 20)),
        [(0, 3, False), (4, 20, False), (21, 26, False)],
    ),
    "a buffer": (
        lambda t, ids: (ids, (torch.isin(ids, t.ends) * 1.0)[..., None]),
        [(0, 2, False), (3, 20, False), (21, 26, False)],
    ),
    "filled": (
        lambda t, ids: (ids.masked_fill(ids == 20, 2), 1.0),
        [(0, 2, False), (3, 20, False), (21, 26, False)],
    ),
    "chosen": (lambda t, ids: (torch.where(ids > 5, ids, 0), 1.0), [(1, 6, False), (6, 26, False)]),
    "written": (
        lambda t, ids: (written(ids, 20, 2), 1.0),
        [(0, 2, False), (3, 20, False), (21, 26, False)],
    ),
    "padded": (
        lambda t, ids: (nn.functional.pad(ids, (0, 4), value=20), 1.0),
        [(0, 20, False), (21, 26, False)],
    ),
    "joined": (
        lambda t, ids: (torch.cat([ids, torch.full((5, 4), 20)], 1), 1.0),
        [(0, 20, False), (21, 26, False)],
    ),
    "joined again": (
        lambda t, ids: (torch.cat([ids, torch.full((5, 4), 20)], 1), t.embed(ids).sum()),
        [(0, 20, False), (21, 26, False)],
    ),
    "joined with itself": (lambda t, ids: (torch.cat([ids, ids], 1), 1.0), [(0, 26, False)]),
    "filled anew": (
        lambda t, ids: (ids, t.embed(t.embed(ids).new_full((5, 1), 20, dtype=torch.int64))),
        [(0, 20, False), (21, 26, False)],
    ),
    "written into a new one": (lambda t, ids: (shifted(ids), 1.0), [(0, 26, True)]),
    "read by its number": (
        lambda t, ids: (ids, (t.embed.weight[20] * 0.5).sum()),
        [(0, 20, False), (21, 26, False)],
    ),
    "bounded": (lambda t, ids: (ids.clamp(max=9), 1.0), [(0, 26, True)]),
    "within bounds": (lambda t, ids: (ids.clamp(0, 25), 1.0), [(0, 26, False)]),
    "compared with each other": (
        lambda t, ids: (ids, (ids == ids[:, :1])[..., None] * 1.0),
        [(0, 26, False)],
    ),
    "compared with what the inputs give": (
        lambda t, ids: (ids, (ids == (ids > 0).sum())[..., None] * 1.0),
        [(1, 26, True)],
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_special_ids_part_the_vocabulary_and_each_part_is_a_symmetry(name):
    before, expected = WAYS[name]
    torch.manual_seed(0)
    module = randomised(Reading(before).eval())
    graph = trace_module(module, inputs={"input_ids": IDS})
    found = []
    for group in graph.groups:
        rows = next((s.layout for s in group.sites if s.param == "embed.weight" and s.dim == 0), None)
        if rows is not None:
            found.append((rows.offset, rows.offset + group.size, group.locked is not None))
            assert group.kind == "vocab" or name == "written into a new one"
    assert found == expected
    ids = torch.randint(VOCAB, IDS.shape, generator=torch.Generator().manual_seed(0))
    proofs = prove(module, graph, tokens=ids)
    assert [proof for proof in proofs if not proof.passed] == []


def test_the_parts_of_a_vocabulary_taken_as_one_are_no_symmetry():
    module = randomised(Reading(WAYS["within bounds"][0]).eval())
    whole = trace_module(module, inputs={"input_ids": IDS})
    module.before = WAYS["equal"][0]
    ids = torch.randint(VOCAB, IDS.shape, generator=torch.Generator().manual_seed(0))
    (proof,) = prove(module, whole, [whole.group("vocab")], tokens=ids)
    assert not proof.passed


class Typed(nn.Module):
    """Ids beside a type that is the same for all of them, unless the caller says otherwise."""

    def __init__(self, types):
        super().__init__()
        self.embed, self.types = nn.Embedding(VOCAB, HIDDEN), nn.Embedding(types, HIDDEN)
        self.out = nn.Linear(HIDDEN, 7)
        self.register_buffer("default", torch.ones(1, 40, dtype=torch.int64))

    def forward(self, input_ids):
        places = torch.arange(input_ids.shape[1]) + (input_ids < 0).sum()
        kinds = self.default.expand(len(input_ids), -1).gather(1, places.expand_as(input_ids))
        return self.out((self.embed(input_ids) + self.types(kinds)).tanh())


@pytest.mark.parametrize("types", [2, 3, 6])
def test_the_one_row_that_is_always_read_is_no_set_and_the_rows_behind_it_are_locked(types):
    torch.manual_seed(0)
    module = randomised(Typed(types).eval())
    graph = trace_module(module, inputs={"input_ids": IDS})
    rows = [
        group for group in graph.groups if any(s.param == "types.weight" and s.dim == 0 for s in group.sites)
    ]
    assert [(group.size, group.kind) for group in rows] == ([(types - 2, "position")] if types > 3 else [])
    assert all("read by its number" in (group.locked or "") for group in rows)
    ids = torch.randint(VOCAB, IDS.shape, generator=torch.Generator().manual_seed(0))
    assert [proof for proof in prove(module, graph, tokens=ids) if not proof.passed] == []
    assert graph.group("vocab").locked is None


class Skipping(nn.Module):
    """Rows of a table chosen by the largest logit; the last of these chooses none."""

    def __init__(self, skips):
        super().__init__()
        self.route = nn.Linear(HIDDEN, 13)
        self.rows = nn.Parameter(torch.randn(12, HIDDEN))
        self.skips = skips

    def forward(self, x):
        best, chosen = self.route(x).softmax(-1).topk(1, -1)
        skipped, chosen = self.skips(chosen)
        return self.rows[chosen[..., 0]] * best.masked_fill(skipped, 0)


def filled_in_place(chosen):
    skipped = chosen == 12
    chosen.masked_fill_(skipped, 0)
    return skipped, chosen


def test_a_last_index_that_is_replaced_leaves_the_rows_that_the_others_read():
    module = Skipping(lambda chosen: (chosen == 12, chosen.masked_fill(chosen == 12, 0)))
    inputs = {"x": torch.rand(5, 19, HIDDEN, generator=torch.Generator().manual_seed(0)).double() - 0.5}
    graph = trace_module(randomised(module.double()), inputs)
    group = next(group for group in graph.groups if group.kind == "expert")
    places = {f"{site.param}[{site.dim}] {site.layout.offset}+{group.size}" for site in group.sites}
    assert places == {"route.weight[0] 1+11", "route.bias[0] 1+11", "rows[0] 1+11"}
    assert group.locked is None
    assert [proof for proof in prove(module, graph, inputs=inputs) if not proof.passed] == []


@pytest.mark.parametrize(
    "skips",
    [
        lambda chosen: (chosen == 11, chosen.masked_fill(chosen == 11, 0)),
        lambda chosen: (chosen == 12, chosen.masked_fill(chosen != 12, 0)),
        lambda chosen: (chosen == 12, chosen.clamp(max=11)),
        lambda chosen: (chosen == 12, chosen.masked_fill(chosen == 12, 12)),
        filled_in_place,
    ],
    ids=["another", "all others", "within bounds", "by itself", "in place"],
)
def test_any_other_way_to_replace_leaves_rows_beside_it_locked(skips):
    graph = trace_module(Skipping(skips), {"x": torch.rand(5, 19, HIDDEN)})
    rows = [
        group for group in graph.groups if ("rows", 0) in {(site.param, site.dim) for site in group.sites}
    ]
    assert rows
    assert all(group.locked for group in rows)
