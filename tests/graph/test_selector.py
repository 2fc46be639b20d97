"""A Selector picks Groups by role and block, and says what exists where it picks nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from surgeon.errors import SelectorError
from surgeon.graph import Graph, Selector
from tests.conftest import llama_config
from tests.handmade import llama_graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return llama_graph(llama_config(num_hidden_layers=6, tie_word_embeddings=True))


def select(graph: Graph, **said: object) -> list[str]:
    return [group.name for group in Selector.model_validate(said).on(graph)]


def test_one_kind_or_several(graph):
    assert select(graph, kind="ffn") == [f"layers.{i}.mlp.ffn" for i in range(6)]
    assert select(graph, kind=["vocab", "hidden"]) == ["hidden", "vocab"]


def test_without_conditions_everything_is_selected(graph):
    assert len(select(graph)) == len(graph.groups)


def test_blocks_leave_out_what_lies_in_no_block(graph):
    assert select(graph, blocks="5:", kind=["hidden", "ffn"]) == ["layers.5.mlp.ffn"]


def test_block_numbers_count_from_either_end(graph):
    assert select(graph, kind="ffn", blocks=2) == ["layers.2.mlp.ffn"]
    assert select(graph, kind="ffn", blocks=[-1, 0]) == ["layers.0.mlp.ffn", "layers.5.mlp.ffn"]


def test_sublayer_is_a_role(graph):
    kinds = {name.rsplit(".")[-1] for name in select(graph, sublayer="attn")}
    assert kinds == {"kv_group", "q_per_kv", "head_dim"}


ends = st.one_of(st.none(), st.integers(-9, 9))


@given(start=ends, stop=ends, step=st.one_of(st.none(), st.integers(-3, 3).filter(bool)))
@settings(deadline=None)
def test_a_slice_in_words_is_pythons_slice(graph, start, stop, step):
    word = ":".join("" if part is None else str(part) for part in (start, stop, step))
    expected = sorted(range(6)[slice(start, stop, step)])
    if not expected:
        with pytest.raises(SelectorError, match="selects nothing"):
            select(graph, kind="ffn", blocks=word)
    else:
        assert select(graph, kind="ffn", blocks=word) == [f"layers.{i}.mlp.ffn" for i in expected]


def test_except_takes_a_selection_or_names(graph):
    left = ["layers.1.mlp.ffn", "layers.2.mlp.ffn", "layers.4.mlp.ffn", "layers.5.mlp.ffn"]
    assert select(graph, kind="ffn", **{"except": {"blocks": "::3"}}) == left
    assert select(graph, kind="ffn", **{"except": ["layers.[03].*"]}) == left
    assert select(graph, kind="hidden", **{"except": "*.ffn"}) == ["hidden"]


def test_except_that_names_nothing_is_an_error(graph):
    with pytest.raises(SelectorError, match=r"no axis is called 'layers\.0\.mlp\.fnf'") as caught:
        select(graph, kind="ffn", **{"except": "layers.0.mlp.fnf"})
    assert "'layers.0.mlp.ffn'" in str(caught.value)
    assert caught.value.key == "except"


def test_an_empty_selection_says_what_exists(graph):
    with pytest.raises(SelectorError) as caught:
        select(graph, kind="expert")
    message = str(caught.value)
    assert "selects nothing" in message
    assert "ffn (6)" in message
    assert "6 blocks in 'model.layers' (0 to 5)" in message
    assert "attn (6), mlp (6)" in message


def test_a_block_out_of_range_names_the_range(graph):
    with pytest.raises(SelectorError, match=r"blocks \[6, -7\] do not exist") as caught:
        select(graph, kind="ffn", blocks=[0, 6, -7])
    assert "from 0 to 5, or from -6 to -1" in str(caught.value)
    assert caught.value.key == "blocks"


def test_expect_asserts_the_count(graph):
    assert len(select(graph, kind="ffn", expect=6)) == 6
    with pytest.raises(SelectorError, match=r"selects 6 groups \(6 ffn\), expected 7") as caught:
        select(graph, kind="ffn", expect=7)
    assert caught.value.key == "expect"


def test_one_stack_can_be_asked_for(graph):
    selector = Selector.model_validate({"kind": "ffn"})
    assert len(selector.on(graph, stack="model.layers")) == 6
    with pytest.raises(SelectorError, match="no stack 'layers'") as caught:
        selector.on(graph, stack="layers")
    assert "'model.layers'" in str(caught.value)


def test_locked_groups_are_selected_too(graph):
    locked = graph.map_groups(lambda group: group.lock(["because"]))
    assert len(select(locked, kind="ffn")) == 6


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"blocks": "2"}, "not a slice"),
        ({"blocks": "a:b"}, "not a slice"),
        ({"blocks": "::0"}, "step of '::0' is 0"),
        ({"blocks": True}, "expected a slice"),
        ({"blocks": []}, "expected a slice"),
        ({"blocks": [0, "1"]}, "expected a slice"),
        ({"blocks": {-4: None}}, "put it in quotes: '-4:'"),
        ({"kind": []}, "an empty list says nothing"),
        ({"kind": "fnn"}, "should be 'hidden', 'ffn'"),
        ({"sublayer": "attention"}, "should be 'attn', 'mlp' or 'mixer'"),
        ({"expect": 0}, "greater than or equal to 1"),
        ({"layers": "2:"}, "Extra inputs"),
        ({"except": {"kinds": "ffn"}}, "Extra inputs"),
    ],
)
def test_spelling_is_checked(said, message):
    with pytest.raises(ValidationError, match=message):
        Selector.model_validate(said)
