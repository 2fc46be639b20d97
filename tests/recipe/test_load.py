"""Recipes are read strictly; every error names file, line, column, key, and what would be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.errors import RecipeError
from surgeon.recipe import Recipe, TextSource, load_recipe
from surgeon.recipe.place import Place

TEXT = """\
surgeon: 1
calibration: {texts: calibration.txt, samples: 64, seq_len: 32}
steps:
  - op: lock
    select: {kind: kv_group, blocks: ":2"}
  - op: remove
    select: {kind: [kv_group, ffn], blocks: "2:-2", except: {blocks: 3}}
    keep: {fraction: 0.75, multiple_of: 8}
    criterion: {criterion: taylor, order: param_first}
export: {dtype: bfloat16}
"""


def refusal(text: str, **options: object) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(text, **options)
    assert caught.value.exit_status == 2
    return str(caught.value).splitlines()


def test_what_is_said_and_what_is_left_out():
    recipe = load_recipe(TEXT)
    assert recipe.calibration is not None
    assert recipe.calibration.texts == (TextSource(path="calibration.txt", weight=1.0),)
    assert (recipe.calibration.samples, recipe.calibration.seq_len, recipe.calibration.seed) == (64, 32, 0)
    assert [step.op for step in recipe.steps] == ["lock", "remove"]
    assert (recipe.export.layout, recipe.export.dtype, recipe.export.shard_size) == (
        "uniform",
        "bfloat16",
        "5GB",
    )
    assert recipe.evaluation is None
    assert recipe.model is None


def test_yaml_json_and_mappings_say_the_same(tmp_path: Path):
    recipe = load_recipe(TEXT)
    (tmp_path / "r.yaml").write_text(TEXT)
    (tmp_path / "r.json").write_text(json.dumps(recipe.to_dict(), indent="\t"))
    assert load_recipe(tmp_path / "r.yaml") == recipe
    assert load_recipe(str(tmp_path / "r.json")) == recipe
    assert load_recipe(recipe.to_dict()) == recipe
    assert load_recipe(recipe) == recipe


def test_the_resolved_recipe_reads_back():
    recipe = load_recipe(TEXT)
    again = load_recipe(recipe.dump())
    assert again == recipe
    assert again.dump() == recipe.dump()
    assert "multiple_of: 8" in recipe.dump()
    assert "shard_size: 5GB" in recipe.dump()


@given(
    start=st.integers(-5, 5),
    seed=st.integers(-(2**40), 2**40),
    weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=3),
    reason=st.text(min_size=1, max_size=20).filter(str.isprintable),
)
@settings(deadline=None, max_examples=40)
def test_dump_and_load_are_inverse(start, seed, weights, reason):
    texts = [{"path": f"{place}.txt", "weight": weight} for place, weight in enumerate(weights)]
    recipe = load_recipe(
        {
            "surgeon": 1,
            "calibration": {"texts": texts, "seed": seed},
            "steps": [{"op": "lock", "select": {"blocks": f"{start}:"}, "reason": reason}],
        }
    )
    assert load_recipe(recipe.dump()) == recipe


@pytest.mark.parametrize(
    ("texts", "paths"),
    [
        ("a.txt", ["a.txt"]),
        ("[a.txt, b.jsonl]", ["a.txt", "b.jsonl"]),
        ("[{path: a.txt, weight: 2}, b.txt]", ["a.txt", "b.txt"]),
    ],
)
def test_texts_in_three_spellings(texts, paths):
    recipe = load_recipe(TEXT.replace("texts: calibration.txt", f"texts: {texts}"))
    assert recipe.calibration is not None
    assert [source.path for source in recipe.calibration.texts] == paths


def test_places_of_what_was_written(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text(TEXT)
    recipe = load_recipe(file)
    assert recipe.place("steps", 1, "keep", "fraction") == Place(str(file), 8, 22)
    assert recipe.place("steps", 1) == Place(str(file), 6, 5)
    assert recipe.place("steps", 1, "shots") == recipe.place("steps", 1)
    assert str(recipe.place("export", "dtype")) == f"{file}:10:17"


def test_relative_texts_start_at_the_recipe_then_at_the_working_directory(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text(TEXT)
    path = ("calibration", "texts")
    here = Path("calibration.txt")
    assert load_recipe(file).candidates(path, "calibration.txt") == (tmp_path / here, here)
    assert load_recipe(file).candidates(path, "/a/b.txt") == (Path("/a/b.txt"),)
    assert load_recipe(load_recipe(file).to_dict()).candidates(path, "calibration.txt") == (here,)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "fraction",
            "fractoin",
            "recipe:8:12: steps.1.keep.fractoin: unknown key 'fractoin'; try 'fraction' ",
        ),
        ("dtype", "dtypes", "recipe:10:10: export.dtypes: unknown key 'dtypes'; try 'dtype' "),
        ("except", "exept", "recipe:7:53: steps.1.select.exept: unknown key 'exept'; try 'except' "),
        (
            "except: {blocks",
            "except: {block",
            "recipe:7:62: steps.1.select.except.block: unknown key 'block'",
        ),
        ("order", "ordre", "recipe:9:36: steps.1.criterion.ordre: unknown key 'ordre'; try 'order' "),
        (
            "samples: 64",
            "samples: '64'",
            "recipe:2:48: calibration.samples: input should be a valid integer, got ",
        ),
        (
            "0.75",
            "1.75",
            "recipe:8:22: steps.1.keep.fraction: input should be less than or equal to 1, got 1.75",
        ),
        ("0.75", "true", "recipe:8:22: steps.1.keep.fraction: input should be a valid number, got true"),
        ("0.75", "~", "recipe:8:11: steps.1.keep: give exactly one of fraction, count, params; got none"),
        (
            "taylor",
            "tailor",
            "recipe:9:16: steps.1.criterion: no criterion is called 'tailor'; try 'taylor' ",
        ),
        ("op: lock", "op: lokc", "recipe:4:5: steps.0: no op is called 'lokc'; try 'lock' "),
        (
            "op: lock",
            "opp: lock",
            "recipe:4:5: steps.0: expected a word or a mapping with 'op'; op is one of ",
        ),
        (
            "param_first",
            "first",
            "recipe:9:43: steps.1.criterion.order: 'first' is not allowed; try 'param_first' ",
        ),
        ("bfloat16", "float8", "recipe:10:17: export.dtype: 'float8' is not allowed; try 'float64' "),
        ("kind: kv_group", "kind: kv", "recipe:5:20: steps.0.select.kind: 'kv' is not allowed; try "),
        ('":2"', "{2: 3}", "recipe:5:39: steps.0.select.blocks.2: a key must be text, not a int"),
        ('":2"', '"2"', "recipe:5:38: steps.0.select.blocks: '2' is not a slice of blocks"),
        ("texts: calibration.txt, ", "", "recipe:2:1: calibration: the key 'texts' is missing"),
        ("seq_len: 32", "seq_len: 2020-01-01", "recipe:2:61: calibration.seq_len: a date is nothing that"),
        ("surgeon: 1\n", "", "recipe:1:1: the key 'surgeon' is missing"),
        ("surgeon: 1", "surgeon: 2", "recipe:1:10: surgeon: version 2 of the recipe format is unknown"),
        ("surgeon: 1", "surgeon: true", "recipe:1:10: surgeon: version True of the recipe format is unknown"),
        ("export:", "steps:", 'recipe:10:1: found duplicate key "steps"'),
        ("export:", "extend: x\nexport:", "recipe:10:1: extend: unknown key 'extend'; try 'extends' "),
    ],
)
def test_one_error_one_line(old, new, line):
    assert TEXT.count(old) >= 1
    assert refusal(TEXT.replace(old, new, 1))[0].startswith(line)


def test_all_errors_of_a_file_are_shown_at_once():
    text = (
        TEXT.replace("fraction", "fractoin")
        .replace("op: lock", "op: lokc")
        .replace("64", "0")
        .replace("dtype", "x")
    )
    head, *lines = refusal(text)
    assert head == "4 errors in the recipe:"
    assert [line.split(": ")[0] for line in lines] == [
        "recipe:2:48",
        "recipe:4:5",
        "recipe:8:12",
        "recipe:10:10",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [1,\n", "recipe:2:1: not YAML: "),
        ("a: b: c\n", "recipe:1:5: not YAML: "),
        ("- 1\n- 2\n", "recipe:1:1: the recipe holds a list, not keys and values"),
        ("hello\nworld\n", "recipe:1:1: the recipe holds a str, not keys and values"),
        ("\n\n", "recipe:1:1: the recipe is empty"),
        ("a: \x00\n", "recipe: not YAML: unacceptable character"),
        ("a: 1\nsurgeon: 1\na: 2\n", 'recipe:3:1: found duplicate key "a"'),
        ("surgeon: 1\nsteps: []\n", "recipe:2:8: steps: list should have at least 1 item"),
        ("surgeon: 1\nsteps: lock\n", "recipe:2:8: steps: input should be a valid list, got the text 'lock'"),
        ("surgeon: 1\nsteps:\n  - 3\n", "recipe:3:5: steps.0: expected a word or a mapping with 'op'"),
        ("surgeon: 1\nsteps:\n  - lock\n", "recipe:3:5: steps.0: the key 'select' is missing"),
    ],
)
def test_what_is_no_recipe(text, message):
    assert refusal(text)[0].startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for name, message in {
        "missing.yaml": "there is no such recipe",
        ".": "this is a folder, not a recipe",
        "binary.yaml": "not text in UTF-8",
    }.items():
        (line, *_) = refusal(str(tmp_path / name))
        assert line.startswith(str(tmp_path))
        assert message in line


def test_a_recipe_is_frozen():
    recipe = load_recipe(TEXT)
    with pytest.raises(ValueError, match="frozen"):
        recipe.model = "x"  # type: ignore[misc]
    assert isinstance(recipe, Recipe)
