"""Every sort of calibration text, from the recipe to the samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from surgeon.api.subject import Subject
from surgeon.api.texts import calibration_samples
from surgeon.errors import InputError, RecipeError
from surgeon.recipe import load_recipe

STEP = {"op": "lock", "select": {"blocks": "0:1"}, "reason": "none"}
STORIES = tuple(f"Once upon a time there was a story, number {n}, and it was told." for n in range(30))
ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16], [17, 18, 19, 20, 21, 22]]


@pytest.fixture
def subject(tiny_model) -> Subject:
    return Subject(tiny_model)


def drawn(subject, texts, **calibration) -> torch.Tensor:
    settings = {"samples": 4, "seq_len": 8, "texts": texts, **calibration}
    recipe = load_recipe({"surgeon": 1, "calibration": settings, "steps": [STEP]})
    reading = calibration_samples(recipe, subject)
    assert reading is not None
    return reading().ids


def words(subject, ids) -> str:
    return subject.tokenizer().decode(ids.flatten(), skip_special_tokens=True)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, object]:
    records = "\n".join(json.dumps({"text": "unread", "story": story}) for story in STORIES)
    folder, data = tmp_path / "folder", tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    data.mkdir()
    for place, story in enumerate(STORIES[:15]):
        (folder / f"{place:02}.txt").write_text(story)
    (folder / "deep" / "more.jsonl").write_text(records)
    (tmp_path / "stories.txt").write_text("\n".join(STORIES))
    (tmp_path / "stories.jsonl").write_text(records)
    (data / "train.jsonl").write_text(records)
    return {
        "text": str(tmp_path / "stories.txt"),
        "jsonl": {"path": str(tmp_path / "stories.jsonl"), "field": "story"},
        "folder": {"path": str(folder), "field": "story"},
        "dataset": {"path": str(data), "split": "train[:25]", "field": "story"},
    }


@pytest.mark.parametrize("sort", ["text", "jsonl", "folder", "dataset"])
def test_text_of_every_sort(subject, sources, sort, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    if sort == "dataset":
        pytest.importorskip("datasets")
    ids = drawn(subject, [sources[sort]])
    assert ids.shape == (4, 8)
    assert "story" in words(subject, ids) or "told" in words(subject, ids)
    assert "unread" not in words(subject, ids)
    assert torch.equal(ids, drawn(subject, [sources[sort]]))
    assert not torch.equal(ids, drawn(subject, [sources[sort]], seed=1))


def test_the_field_of_the_section_holds_for_all_that_say_none(subject, sources):
    bare = {"path": sources["jsonl"]["path"]}  # type: ignore[index]
    assert torch.equal(drawn(subject, [bare], field="story"), drawn(subject, [sources["jsonl"]]))


def test_token_ids_are_samples_as_they_are(subject, tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps(ROWS))
    save_file({"input_ids": torch.tensor(ROWS)}, tmp_path / "ids.safetensors")
    for name in ("ids.json", "ids.safetensors"):
        assert drawn(subject, str(tmp_path / name), samples=2, seq_len=5).tolist() == [
            row[:5] for row in ROWS[:2]
        ]


def test_several_sources_by_weight(subject, sources, tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps(ROWS))
    texts = [{"path": sources["text"], "weight": 3}, {"path": str(tmp_path / "ids.json"), "weight": 1}]
    ids = drawn(subject, texts, seq_len=6)
    assert ids[3].tolist() == ROWS[0]
    alone = drawn(subject, sources["text"], samples=3, seq_len=6)
    assert torch.equal(ids[:3], alone)


def test_a_dataset_that_cannot_be_had(subject, sources, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="the dataset 'no/such-texts' cannot be read") as error:
        drawn(subject, [{"path": "no/such-texts", "split": "train"}])
    assert "text file" in error.value.hint
    with pytest.raises(InputError, match="has no column 'tale', but text, story"):
        drawn(subject, [{**sources["dataset"], "field": "tale"}])  # type: ignore[dict-item]


def test_a_dataset_without_the_package(subject, monkeypatch):
    monkeypatch.setattr("surgeon.io.hub_texts.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package datasets"):
        drawn(subject, [{"path": "some/texts", "split": "train"}])


def test_a_config_without_a_split():
    texts = [{"path": "some/texts", "config": "en"}]
    with pytest.raises(RecipeError, match="say which split too"):
        load_recipe({"surgeon": 1, "calibration": {"texts": texts}, "steps": [STEP]})
