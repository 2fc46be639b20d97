"""The picture, parsed: every layer is there, numbers are the plan's, nothing is fetched, text is text."""

from __future__ import annotations

import re

import pytest

from surgeon.api.picture import picture_page
from surgeon.plan import Assign, Choice, Cost, DropBlock, Keep, Plan, Refused, Report, StepRecord
from surgeon.plan.cost import parameters_after
from surgeon.plan.report import LedgerRow, Loads
from tests.api.picture.reading import all_elements, read_page
from tests.conftest import llama_config
from tests.handmade import llama_graph

BLOCK = "model.layers.{}"
FFN = "layers.{}.mlp.ffn"


def graph_of(layers: int = 6, **changes):
    return llama_graph(llama_config(num_hidden_layers=layers, **changes))


def page(graph, edits=(), built=None, **report):
    """The page of these Edits, and its parsed form."""
    plan = Plan(graph.model_type, tuple(edits))
    before, after = (Cost(parameters=parameters_after(p, graph)) for p in (Plan(graph.model_type), plan))
    made = Report(**{"model": "some/model", "before": before, "after": after, **report})
    text = picture_page(made, plan, graph, built)
    return text, read_page(text)


def panels(root):
    return {figure.of("figcaption").text: figure for figure in root.all("figure")}


def stack_rows(root):
    return root.all("figure", "stack")[0].all("g", "row")


def percent(value: str) -> float:
    return float(value.removesuffix("%"))


@pytest.mark.parametrize("layers", [1, 12, 80])
def test_every_layer_is_drawn_and_told(layers):
    _, root = page(graph_of(layers))
    rows = stack_rows(root)
    assert [row.all("text", "number")[0].text for row in rows] == [str(place) for place in range(layers)]
    assert all(f"layer {place}: kept as it is" in row.of("title").text for place, row in enumerate(rows))
    table = root.of("details").of("table")
    assert [row.all("td")[0].text for row in table.of("tbody").all("tr")] == [str(n) for n in range(layers)]


def test_a_dropped_layer_is_hollow_and_the_others_move_up():
    graph = graph_of()
    _, root = page(graph, [DropBlock(BLOCK.format(2), 0)])
    rows = stack_rows(root)
    assert "dropped" in rows[2].of("text", "fate").text
    assert {rect.attrs["class"] for rect in rows[2].all("rect")} == {"hit", "gone"}
    places = [[number.text for number in row.all("text", "number")] for row in rows]
    assert places == [["0", "0"], ["1", "1"], ["2"], ["3", "2"], ["4", "3"], ["5", "4"]]
    assert "6 → 5 layers" in root.of("p", "lede").text
    desc = root.of("figure", "stack").of("desc").text
    assert desc == "6 layers before, 5 after. Dropped: 2."


def test_widths_are_drawn_to_scale_and_named():
    graph = graph_of()
    keeps = [Keep(FFN.format(place), tuple(range(40 - 5 * place)), 0) for place in range(6)]
    choices = [Choice(axis=keep.axis, size=40, kept=len(keep.indices), requested=7) for keep in keeps]
    step = StepRecord(step=0, op="remove", choices=tuple(choices))
    _, root = page(graph, keeps, steps=(step,))
    figure = panels(root)["Kept: mlp ffn, of 40"]
    for place, row in enumerate(figure.all("g", "row")):
        (kept,) = row.all("rect", "kept")
        whole = percent(kept.attrs["width"]) + sum(percent(r.attrs["width"]) for r in row.all("rect", "gone"))
        assert percent(kept.attrs["width"]) / whole == pytest.approx((40 - 5 * place) / 40, rel=1e-3)
        assert str(40 - 5 * place) in row.all("text")[-1].text
        assert len(row.all("line", "asked")) == 1
    assert list(panels(root)) == ["Parameters of each layer, at most 12.77 k", "Kept: mlp ffn, of 40"]
    assert "35 of 40 in layers 1" in figure.of("desc").text


def test_bars_of_layers_are_their_parameters():
    graph = graph_of()
    _, root = page(graph, [Keep(FFN.format(1), tuple(range(10)), 0)])
    after = [
        sum(percent(r.attrs["width"]) for r in row.all("rect") if r.attrs["class"] in ("p-attn", "p-mlp"))
        for row in stack_rows(root)
    ]
    block = sum(p.numel for p in graph.parameters.values() if p.name.startswith("model.layers.1."))
    assert after[1] / after[0] == pytest.approx((block - 30 * 3 * 48) / block, rel=1e-3)


def test_few_indices_are_drawn_one_by_one_with_what_joined_what():
    graph = graph_of()
    axis = "layers.0.attn.kv_group"
    assign = Assign(graph.group(axis).params[0], "merge", {"clusters": [[0, 2], [1]]}, 0)
    _, root = page(graph, [assign, Keep(axis, (0, 1), 0)])
    row = panels(root)["Kept: attn kv group, of 3"].all("g", "row")[0]
    assert [r.attrs["class"] for r in row.all("rect")] == ["hit", "kept", "kept", "merged"]
    assert "2 into 0" in row.of("title").text


def test_merges_end_in_the_layer_that_is_left():
    graph = graph_of()
    weight = BLOCK + ".mlp.up_proj.weight"
    pairs = [(3, 4), (2, 3)]  # 4 joins 3, which joins 2
    edits = []
    for first, second in pairs:
        blocks = [BLOCK.format(first), BLOCK.format(second)]
        edits += [Assign(weight.format(first), "merge.mean", {"blocks": blocks}, 0), DropBlock(blocks[1], 0)]
    _, root = page(graph, edits)
    rows = stack_rows(root)
    assert [rows[place].of("text", "fate").text for place in (3, 4)] == ["into 2", "into 2"]
    assert "takes in 3, 4" in rows[2].of("title").text
    assert "Merged into 2: 3,4." in root.of("figure", "stack").of("desc").text
    assert "merged into" in root.of("ul", "legend").text


def test_a_merge_that_changes_no_weight_is_told_by_the_report():
    graph = graph_of()
    blocks = [BLOCK.format(2), BLOCK.format(3)]
    choice = Choice(axis=blocks[1], size=1, kept=0, score=0.5, into=blocks[0])
    steps = (StepRecord(step=0, op="merge", choices=(choice,)),)
    _, root = page(graph, [DropBlock(blocks[1], 0)], steps=steps)
    assert stack_rows(root)[3].of("text", "fate").text == "into 2"
    assert len(panels(root)["Similarity"].all("circle")) == 1


def test_a_repair_is_marked_and_explained():
    graph = graph_of()
    _, plain = page(graph)
    assert "fitted again" not in plain.of("ul", "legend").text
    _, root = page(graph, [Assign(BLOCK.format(1) + ".mlp.down_proj.weight", "repair.refit", {}, 0)])
    assert [len(row.all("polygon")) for row in stack_rows(root)] == [0, 1, 0, 0, 0, 0]
    assert "MLP fitted again" in stack_rows(root)[1].of("title").text
    assert "fitted again" in root.of("ul", "legend").text


def test_zeros_that_are_stored_are_shown():
    graph = graph_of()
    built = Plan(graph.model_type, (Keep(FFN.format(0), tuple(range(30)), 0),))
    _, root = page(graph, [Keep(FFN.format(0), tuple(range(10)), 0)], built)
    row = panels(root)["Kept: mlp ffn, of 40"].all("g", "row")[0]
    kept, zeros, gone = (percent(row.of("rect", sort).attrs["width"]) for sort in ("kept", "zeros", "gone"))
    assert (kept, zeros, gone) == pytest.approx((16, 32, 16))
    assert row.all("text")[-1].text == "10+20"


@pytest.mark.parametrize(("values", "logarithmic"), [((0.1, 0.2, 0.3), False), ((0.1, 1.0, 10.0), True)])
def test_scores_lie_on_their_scale(values, logarithmic):
    graph = graph_of(3)
    choices = [
        Choice(axis=BLOCK.format(place), size=1, kept=int(place > 0), score=score)
        for place, score in enumerate(values)
    ]
    options = {"criterion": {"criterion": "block_influence"}}
    step = StepRecord(step=0, op="drop_blocks", options=options, choices=tuple(choices))
    _, root = page(graph, [DropBlock(BLOCK.format(0), 0)], steps=(step,))
    title = "Block influence" + (" (log scale)" if logarithmic else "")
    dots = panels(root)[title].all("circle")
    at = [percent(dot.attrs["cx"]) for dot in dots]
    assert at[1] == pytest.approx((at[0] + at[2]) / 2, abs=0.01)
    assert ["hollow" in dot.attrs["class"] for dot in dots] == [True, False, False]


def test_what_was_asked_and_what_came_out():
    graph = graph_of()
    choices = tuple(Choice(axis=FFN.format(n), size=40, kept=24, requested=25) for n in range(6))
    step = StepRecord(
        step=0,
        op="remove",
        options={"keep": {"fraction": 0.625}, "criterion": {"criterion": "taylor", "order": "param_first"}},
        choices=choices,
        refused=(Refused(axis="layers.0.attn.head_dim", reason="it is locked"),),
    )
    _, root = page(
        graph,
        [Keep(choice.axis, tuple(range(24)), 0) for choice in choices],
        steps=(step,),
        ledger=(LedgerRow(field="width", old=None, new=24, why="ffn"),),
        loads=(Loads(loader="vllm", verdict="unsure", why="perhaps"),),
        warnings=("mind the gap",),
    )
    said = root.of("main").text
    for words in (
        "keep: fraction 0.625",
        "criterion: taylor (order param_first)",
        "layers.0-5.mlp.ffn: 40 → 24 (asked for 25)",
        "left alone: layers.0.attn.head_dim: it is locked",
        "unset",
        "perhaps",
        "mind the gap",
    ):
        assert words in said


def test_nothing_is_fetched_and_nothing_runs():
    text, root = page(graph_of(), [DropBlock(BLOCK.format(0), 0)])
    elements = all_elements(root)
    assert not {element.tag for element in elements} & {"script", "img", "link", "iframe", "object", "image"}
    attributes = {name for element in elements for name in element.attrs}
    assert not attributes & {"src", "href", "xlink:href", "srcset", "style", "data", "action"}
    assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|//|url\(|@import|@font-face", text)
    policy = next(e.attrs["content"] for e in elements if e.attrs.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_what_comes_from_outside_is_escaped():
    evil = "<script>alert(1)</script> & \"quoted\" 'too'"
    step = StepRecord(step=0, op=evil, options={evil: evil}, notes=(evil,))
    text, root = page(graph_of(1), model=evil, steps=(step,), warnings=(evil,))
    assert "<script" not in text
    assert root.of("h1").text == evil
    assert root.of("main").text.count(evil) == 6


def test_it_can_be_read_without_seeing_it():
    _, root = page(graph_of(), [DropBlock(BLOCK.format(0), 0)])
    assert root.of("html").attrs["lang"] == "en"
    ids = [element.attrs["id"] for element in all_elements(root) if "id" in element.attrs]
    assert len(ids) == len(set(ids))
    for svg in (svg for figure in root.all("figure") for svg in figure.all("svg") if "role" in svg.attrs):
        assert {svg.attrs["aria-labelledby"], svg.attrs["aria-describedby"]} <= set(ids)
        assert svg.of("desc").text
    assert all(head.attrs["scope"] == "col" for head in root.all("th"))


def test_a_folder_is_named_by_its_last_part():
    for model, shown in (("org/name", "org/name"), ("/home/me/models/small", "small"), ("a/b/c", "c")):
        assert page(graph_of(1), model=model)[1].of("h1").text == shown


def test_axes_of_no_layer_are_told():
    graph = graph_of()
    _, root = page(graph, [Keep("hidden", tuple(range(32)), 0)])
    assert "In the whole model: hidden 48 → 32." in root.of("main").text
