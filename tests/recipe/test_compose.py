"""``extends:`` lays one recipe over another; ``--set`` replaces single values."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import RecipeError
from surgeon.recipe import load_recipe
from tests.recipe.test_load import TEXT, refusal

BASE = "surgeon: 1\nextends: {base}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(TEXT)
    (tmp_path / "sub").mkdir()
    return tmp_path


def test_mappings_merge_and_lists_are_replaced(folder: Path):
    top = folder / "sub" / "top.yaml"
    top.write_text(
        BASE.format(base="../base.yaml")
        + "calibration:\n  samples: 4\nsteps:\n  - op: lock\n    select: {kind: ffn}\n"
    )
    recipe = load_recipe(top)
    assert recipe.calibration is not None
    assert (recipe.calibration.samples, recipe.calibration.seq_len) == (4, 32)
    assert [step.op for step in recipe.steps] == ["lock"]
    assert recipe.export.dtype == "bfloat16"
    assert "extends" not in recipe.to_dict()


def test_places_and_relative_paths_belong_to_the_file_that_says_them(folder: Path):
    top = folder / "sub" / "top.yaml"
    top.write_text(BASE.format(base="../base.yaml") + "calibration:\n  samples: 4\n")
    recipe = load_recipe(top)
    assert recipe.place("calibration", "samples") == (str(top), 4, 12)
    base = str(folder / "sub" / ".." / "base.yaml")
    assert recipe.place("calibration", "texts") == (base, 2, 22)
    first, _ = recipe.candidates(("calibration", "texts"), "calibration.txt")
    assert first.resolve() == folder / "calibration.txt"


def test_errors_point_into_either_file(folder: Path):
    (folder / "base.yaml").write_text(TEXT.replace("0.75", "7.5"))
    top = folder / "top.yaml"
    top.write_text(BASE.format(base="base.yaml") + "export:\n  dtype: int8\n")
    _, below, above = refusal(str(top))
    assert below.startswith(f"{folder / 'base.yaml'}:8:22: steps.1.keep.fraction")
    assert above.startswith(f"{top}:4:10: export.dtype")


def test_a_replaced_list_leaves_no_places_behind(folder: Path):
    top = folder / "top.yaml"
    top.write_text(BASE.format(base="base.yaml") + "steps:\n  - {op: remove, select: {}, keep: {count: 1}}\n")
    (line,) = refusal(str(top))
    assert line == f"{top}:4:5: steps.0: the key 'criterion' is missing"


def test_chains_and_circles(folder: Path):
    (folder / "one.yaml").write_text(BASE.format(base="base.yaml") + "export: {shard_size: 1GB}\n")
    (folder / "two.yaml").write_text(BASE.format(base="one.yaml") + "export: {dtype: float16}\n")
    export = load_recipe(folder / "two.yaml").export
    assert (export.dtype, export.shard_size) == ("float16", "1GB")
    (folder / "base.yaml").write_text(BASE.format(base="two.yaml"))
    first, *_ = refusal(str(folder / "two.yaml"))
    assert "the recipes extend each other in a circle" in first


def test_a_missing_base_names_who_wanted_it(folder: Path):
    top = folder / "top.yaml"
    top.write_text(BASE.format(base="nowhere.yaml"))
    assert refusal(str(top)) == [
        f"{folder / 'nowhere.yaml'}: there is no such recipe",
        f"{top}:2:10: extends: named here",
    ]
    top.write_text("surgeon: 1\nextends: [a, b]\n")
    assert refusal(str(top)) == [f"{top}:2:10: extends: expected the path of a recipe, got ['a', 'b']"]


def remove(*overrides: str):
    return load_recipe(TEXT, overrides).steps[1]


def test_set_replaces_one_value():
    assert remove("steps.1.keep.fraction=0.5").keep.fraction == 0.5
    assert remove("steps.1.keep={count: 8}").keep.count == 8
    assert remove("steps.1.select.kind=ffn").select.kind == ("ffn",)
    assert load_recipe(TEXT, ["evaluation.texts=held-out.txt"]).evaluation is not None
    assert load_recipe(TEXT, ["calibration.seed=3", "calibration.seed=4"]).calibration.seed == 4


def test_set_reaches_into_what_a_bare_word_is_short_for():
    step = remove("steps.1.criterion=magnitude", "steps.1.criterion.norm=l1")
    assert (step.criterion.criterion, step.criterion.norm) == ("magnitude", "l1")


def test_set_changes_a_recipe_that_is_loaded():
    assert load_recipe(load_recipe(TEXT), ["steps.1.keep.fraction=0.5"]).steps[1].keep.fraction == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps.1.keep.fractoin=0.5", "steps.1.keep.fractoin: unknown key 'fractoin'; try 'fraction'"),
        ("step.1.keep=3", "step: unknown key 'step'; try 'steps'"),
        (
            "steps.1.keep.fraction=x",
            "steps.1.keep.fraction: input should be a valid number, got the text 'x'",
        ),
        ("steps.1.keep", "expected PATH=VALUE"),
        ("steps..keep=1", "expected PATH=VALUE"),
        ("steps.5.keep=1", "'steps' is a list of 2, it has no '5'"),
        ("steps.first.keep=1", "'steps' is a list of 2, it has no 'first'"),
        ("steps.1.keep.fraction.of=1", "'steps.1.keep.fraction' is 0.75, which has no 'of'"),
        ("steps.1.keep={count: 3", "not YAML"),
    ],
)
def test_set_errors_name_the_option(override, message):
    (line, *_) = refusal(TEXT, overrides=[override])
    assert line.startswith(f"--set {override}:")
    assert message in line


def test_set_does_not_change_what_it_was_given():
    data = load_recipe(TEXT).to_dict()
    load_recipe(data, ["steps.1.keep.fraction=0.5"])
    assert data["steps"][1]["keep"]["fraction"] == 0.75


def test_a_bad_override_is_a_recipe_error_of_status_two():
    with pytest.raises(RecipeError) as caught:
        load_recipe(TEXT, ["x"])
    assert caught.value.exit_status == 2
