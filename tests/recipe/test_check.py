"""A recipe against a model: selections and amounts, with the place of every misfit."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import RecipeError
from surgeon.recipe import check_recipe, load_recipe
from tests.conftest import llama_config
from tests.handmade import llama_graph
from tests.recipe.test_load import TEXT

GRAPH = llama_graph(llama_config(num_hidden_layers=6))
FITTING = TEXT.replace(", multiple_of: 8", "")


def misfits(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe(file), GRAPH)
    return str(caught.value).replace(str(file), "FILE").splitlines()


def test_what_each_step_selects():
    lock, remove = check_recipe(load_recipe(FITTING), GRAPH)
    assert lock == ("lock", ("layers.0.attn.kv_group", "layers.1.attn.kv_group"))
    assert remove == ("remove", ("layers.2.attn.kv_group", "layers.2.mlp.ffn"))


def test_passes_are_carried_out_for_the_steps_after_them():
    text = FITTING.replace("op: lock", "op: regroup", 1).replace("kind: kv_group", "kind: ffn", 1)
    _, remove = check_recipe(load_recipe(text.replace("2:-2", ":")), GRAPH)
    assert "layers.*.mlp.ffn" in remove[1]


def test_every_misfit_is_listed_with_its_place(tmp_path: Path):
    text = TEXT.replace('blocks: ":2"', "blocks: 77").replace("fraction: 0.75, multiple_of: 8", "count: 50")
    head, blocks, hint, kv, ffn = misfits(text, tmp_path)
    assert head == "3 errors in the recipe:"
    assert blocks == (
        "FILE:5:38: steps.0.select.blocks: blocks [77] do not exist: 'model.layers' has 6 blocks"
    )
    assert "numbers from 0 to 5" in hint
    assert kv.startswith("FILE:8:19: steps.1.keep.count: count 50 is more than there is: 3 ")
    assert ffn.endswith("40 ('layers.2.mlp.ffn'; 1 to 40 can be kept)")


def test_a_fraction_that_leaves_nothing_is_out_of_range(tmp_path: Path):
    (line, hint) = misfits(FITTING.replace("0.75", "0.3"), tmp_path)
    assert line.startswith(
        "FILE:8:22: steps.1.keep.fraction: fraction 0.3 of an axis of size 3 keeps nothing"
    )
    assert "at least 0.3333" in hint


def test_a_target_above_the_model_is_out_of_range(tmp_path: Path):
    total = GRAPH.parameter_count
    (line, *_) = misfits(FITTING.replace("fraction: 0.75", f"params: {total + 1}"), tmp_path)
    assert line.startswith(
        f"FILE:8:20: steps.1.keep.params: params {total + 1} is more than the model has: {total}"
    )
    check_recipe(load_recipe(FITTING.replace("fraction: 0.75", f"params: {total}")), GRAPH)


def test_selections_that_are_empty_or_not_as_expected(tmp_path: Path):
    (line, hint) = misfits(FITTING.replace("[kv_group, ffn]", "expert"), tmp_path)
    assert line.startswith("FILE:7:13: steps.1.select: select ")
    assert "kinds ffn (6)" in hint
    (line, hint) = misfits(FITTING.replace('":2"', '":2", expect: 3'), tmp_path)
    assert line.startswith("FILE:5:52: steps.0.select.expect: ")
    assert "selects 2 groups (2 kv_group), expected 3" in line


def test_a_pass_that_refuses_is_a_misfit(tmp_path: Path):
    (line, _) = misfits(
        FITTING.replace("op: lock", "op: unlock").replace('":2"}', '":2"}\n    reason: x'), tmp_path
    )
    assert line == "FILE:4:5: steps.0: pass 'unlock': nothing of what it selects is locked"
