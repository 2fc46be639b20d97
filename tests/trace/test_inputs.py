"""What a model is run on: sizes that are nobody else's, several kinds of input, and what stays unseen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, T5Config

from surgeon.rebuild.skeleton import skeleton
from surgeon.rebuild.symmetry import prove, randomised
from surgeon.trace import recorded_inputs, trace_module
from surgeon.trace.inputs import data_sizes, example_inputs, further_inputs
from surgeon.trace.picks import picks_of
from surgeon.trace.terms import Atom, Product
from tests.trace.dump import site_text
from tests.trace.families import CONFIGS, GPT, bare
from tests.trace.test_modalities import WIDTH, Reader
from tests.trace.toys import HIDDEN, IDS, VOCAB, Toy, toy


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_and_length_are_primes_that_divide_no_dim_of_the_model(name):
    module = bare(name)
    (ids,) = example_inputs(module).values()
    for size in ids.shape:
        assert size > 2
        assert all(size % divisor for divisor in range(2, size))
        assert all(math.gcd(size, dim) == 1 for p in module.parameters() for dim in p.shape)
    assert len(set(ids.shape)) == 2
    assert data_sizes({"input_ids": ids}, module) == set(ids.shape)


def test_a_decoder_gets_ids_of_another_length():
    config = T5Config(vocab_size=151, d_model=60, d_kv=10, d_ff=88, num_layers=1, num_heads=6)
    config.architectures = ["T5ForConditionalGeneration"]
    inputs = example_inputs(skeleton(config))
    assert set(inputs) == {"input_ids", "decoder_input_ids"}
    (batch, length), (same, other) = (ids.shape for ids in inputs.values())
    assert batch == same
    assert length != other


def test_states_of_an_encoder_are_tried_where_a_decoder_accepts_them():
    module = skeleton(GPT2Config(**GPT, n_inner=88, n_positions=64, add_cross_attention=True))
    feed = example_inputs(module)
    ways = [list(extra) for kind in further_inputs(module, feed) for extra in kind]
    assert ways == [["input_ids", "encoder_hidden_states"], ["input_ids", "token_type_ids"]]
    graph = trace_module(module)
    assert [p.name for p in graph.parameters.values() if not p.touched] == []
    crossing = {
        group.name
        for group in graph.groups
        for site in group.sites
        if "crossattention" in site.param and group.kind == "kv_group"
    }
    assert len(crossing) == 2
    assert [extra for kind in further_inputs(bare("llama"), feed) for extra in kind] == []


class Forked(Toy):
    """A Toy with a second way through: another pair of projections, where `other` is asked for."""

    def __init__(self):
        super().__init__(lambda t, x: x)
        self.left, self.right = nn.Linear(HIDDEN, 9), nn.Linear(9, HIDDEN)

    def forward(self, input_ids, other=None):
        hidden = self.embed(input_ids)
        if other is not None:
            return self.out(hidden + self.right(self.left(hidden)).tanh())
        return self.out(hidden + self.down(self.up(hidden)))


ONE, TWO = {"input_ids": IDS}, {"input_ids": IDS, "other": IDS.clone()}


def test_what_a_forward_pass_leaves_out_is_noted_and_locks_what_it_may_share():
    graph = trace_module(Forked(), inputs=ONE)
    assert {p.name for p in graph.parameters.values() if not p.touched} == {
        f"{side}.{leaf}" for side in ("left", "right") for leaf in ("weight", "bias")
    }
    assert graph.notes[0].startswith("4 parameters were not used in this forward pass: ")
    (residual,) = [group for group in graph.groups if group.size == HIDDEN]
    assert residual.locked == "parameters that this forward pass did not use may share it"


class Nested(nn.Module):
    """A Toy whose middle holds a part for another kind of input, and one that nothing reads."""

    class Middle(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.rest = (nn.Linear(*size) for size in ((14, 9), (9, 14), (9, 14)))
            self.forgotten = nn.Embedding(2, HIDDEN)

        def forward(self, x, other):
            inner = self.first(x).tanh()
            return self.second(inner) if other is None else self.rest(inner)

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(26, HIDDEN), nn.Linear(HIDDEN, 26)
        self.middle, self.apart = Nested.Middle(), nn.Linear(9, 17)

    def forward(self, input_ids, other=None):
        hidden = self.embed(input_ids)
        return self.apart(hidden) if input_ids is None else self.out(hidden + self.middle(hidden, other))


def test_a_table_that_is_read_at_one_row_is_read_by_what_each_token_is():
    sizes = {"hidden_size": 60, "intermediate_size": 88, "num_hidden_layers": 1, "num_attention_heads": 6}
    module = skeleton(BertConfig(**sizes, vocab_size=151, type_vocab_size=4))
    assert [set(feed) for feed in recorded_inputs(module)][1:] == [{"input_ids", "token_type_ids"}]
    (types,) = [group for group in trace_module(module).groups if group.size == 3]  # all but the usual one
    assert types.locked is None
    assert [(port.name, port.dim) for port in types.ports] == [("token_type_ids", None)]


class Predicting(Reader):
    """A vector in the place of each token that is to be predicted, which reads the others."""

    def __init__(self):
        super().__init__()
        del self.connect
        self.blank = nn.Parameter(torch.randn(WIDTH))

    def forward(self, input_ids, target_mapping=None):
        hidden = self.embed(input_ids)
        if target_mapping is not None:
            hidden = (target_mapping @ hidden).tanh() * self.blank
        return self.out(hidden)


def test_what_stands_for_a_token_to_predict_is_reached():
    torch.manual_seed(0)
    module = randomised(Predicting().eval())
    text, both = recorded_inputs(module)
    assert set(both) - set(text) == {"target_mapping"}
    graph = trace_module(module)
    (stream,) = [group for group in graph.groups if group.size == WIDTH]
    assert {site.param for site in stream.sites} == {"embed.weight", "blank", "out.weight"}
    assert stream.locked is None
    proofs = prove(module, graph, inputs=both)
    assert [proof for proof in proofs if not (proof.passed and proof.sharp)] == []


class Summing(nn.Module):
    """A layer that sums up every hundred tokens as one more, so that few of them reach no summary."""

    def __init__(self):
        super().__init__()
        self.summary = nn.Linear(WIDTH, WIDTH)

    def forward(self, whole):
        parts = whole[:, : whole.shape[1] // 100 * 100].unflatten(1, (-1, 100)).mean(2)
        return torch.cat([whole, self.summary(parts)], 1) if parts.shape[1] else whole


class Long(Reader):
    """Text through one layer that sums it up."""

    def __init__(self):
        super().__init__()
        del self.connect
        self.layers = nn.ModuleList([Summing()])

    def forward(self, input_ids):
        return self.out(self.layers[0](self.embed(input_ids)))


def test_a_long_text_reaches_what_sums_up_many_tokens():
    torch.manual_seed(0)
    module = randomised(Long().eval())
    text, long = recorded_inputs(module)
    assert long["input_ids"].shape[1] > 100 > text["input_ids"].shape[1]
    graph = trace_module(module)
    assert [p.name for p in graph.parameters.values() if not p.touched] == []
    assert {group.locked for group in graph.groups} == {None}
    proofs = prove(module, graph, inputs=long)
    assert [proof for proof in proofs if not (proof.passed and proof.sharp)] == []


def test_a_part_that_is_not_called_shares_only_what_the_modules_around_it_see():
    module = Nested()
    graph = trace_module(module, inputs=ONE)
    locked = {group.size for group in graph.groups if group.locked}
    assert locked == {9, HIDDEN}  # `rest` may be handed the inner axis, and adds to the stream
    del module.middle.rest
    graph = trace_module(module, inputs=ONE)  # nothing hands it to `apart`, which has nine features too
    assert {group.size for group in graph.groups if group.locked} == set()


def test_a_parameter_that_no_code_names_locks_nothing():
    module = Nested()
    del module.middle.rest, module.apart
    graph = trace_module(module, inputs=ONE)
    assert [p.name for p in graph.parameters.values() if not p.touched] == ["middle.forgotten.weight"]
    assert {group.locked for group in graph.groups} == {None}


def test_several_kinds_of_input_make_one_graph():
    graph = trace_module(Forked(), inputs=[ONE, TWO])
    assert graph.notes == ()
    found = {frozenset(site_text(site) for site in group.sites) for group in graph.groups}
    inner = {"left.weight[0] 0+[9:1]", "left.bias[0] 0+[9:1]", "right.weight[1] 0+[9:1]"}
    assert inner in found
    (residual,) = [group for group in graph.groups if group.size == HIDDEN]
    assert residual.locked is None
    assert {"left.weight", "right.weight", "up.weight", "down.weight"} <= set(residual.params)


def test_features_that_the_caller_hands_in_are_locked():
    module = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 9))
    graph = trace_module(module, inputs={"input": torch.zeros(5, 8)})
    reasons = {group.size: group.locked for group in graph.groups}
    assert reasons[8] == "features of the input 'input', which the caller decides"
    assert reasons[12] is None


def test_an_axis_twice_in_one_product_is_locked():
    def outer(module, x):
        return (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) @ module.a

    module = toy(outer, a=lambda: nn.Parameter(torch.rand(24 * 24, 24)))
    graph = trace_module(module, inputs=ONE)
    twice = next(group for group in graph.groups if "a" in group.params and len(group.sites) > 2)
    assert twice.locked == "appears twice in one product"
    ids = torch.randint(VOCAB, IDS.shape, generator=torch.Generator().manual_seed(0))
    assert all(proof.passed for proof in prove(module, graph, tokens=ids))


def test_a_ranking_says_how_many_must_stay():
    experts, groups, inside = Atom(12), Atom(4), Atom(3)
    assert picks_of([(experts, 2), (experts, 3)]) == {experts.id: 3}
    # two of four groups, then five experts of those: three inside a group must stay
    assert picks_of([(groups, 2), (Product((groups, inside)), 5)]) == {groups.id: 2, inside.id: 3}
    # seven of four by three: three groups could do, and then they must be whole
    assert picks_of([(Product((groups, inside)), 7)]) == {groups.id: 3, inside.id: 3}


def test_ids_that_are_compared_only_to_warn_leave_the_vocabulary_free():
    config = BertConfig(
        vocab_size=151, hidden_size=60, num_hidden_layers=1, num_attention_heads=6, intermediate_size=88
    )
    module = randomised(BertForMaskedLM(config).eval())
    own = {name for name in vars(module) if name.startswith("warn")}
    graph = trace_module(module)
    assert {name for name in vars(module) if name.startswith("warn")} == own
    (vocab,) = [group for group in graph.groups if group.kind == "vocab"]
    assert config.pad_token_id is not None
    assert vocab.locked is None
    (proof,) = prove(module, graph, [vocab])
    assert proof.passed
    assert proof.sharp
