"""Calibration and evaluation texts, good and bad."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from surgeon.errors import InputError
from surgeon.io import read_texts


@pytest.fixture
def write(tmp_path):
    def make(name, content):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return make


def test_text(write):
    assert read_texts(write("a.txt", "Grüße\n")).documents == ("Grüße\n",)


def test_folder(write, tmp_path):
    write("b.txt", "two")
    write("a.txt", "one")
    assert read_texts(tmp_path).documents == ("one", "two")


def test_folder_without_text(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.txt or \.jsonl file"):
        read_texts(tmp_path)


def test_token_ids(write, tmp_path):
    rows = ((1, 2, 3), (4, 5, 6))
    save_file({"input_ids": torch.tensor(rows)}, tmp_path / "ids.safetensors")
    assert read_texts(tmp_path / "ids.safetensors").rows == rows
    assert read_texts(write("ids.json", json.dumps(rows))).rows == rows
    assert read_texts(write("named.json", json.dumps({"input_ids": rows}))).rows == rows


def test_shared_reference_ids(shared_data):
    rows = read_texts(shared_data / "reference" / "ids-llm_pruner.safetensors").rows
    assert len({len(row) for row in rows}) == 1


def test_list_of_texts(write):
    assert read_texts(write("texts.json", '["one", "two"]')).documents == ("one", "two")


def test_records(write):
    lines = '{"text": "one", "n": 1}\n\n{"text": "two"}\n'
    assert read_texts(write("a.jsonl", lines)).documents == ("one", "two")
    assert read_texts(write("b.jsonl", '{"story": "x"}'), field="story").documents == ("x",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.txt", " \n\t", "is empty"),
        ("a.txt", b"text \xff\xfe", "byte 5 is 0xff, which is no UTF-8"),
        ("a.txt", b"text\x00more", "byte 4 is zero"),
        ("a.json", "[[1, 2], 3]", "neither a list of lists of token ids nor a list of texts"),
        ("a.json", "[[1, 2], []]", "neither a list of lists"),
        ("a.json", "[[1, true]]", "neither a list of lists"),
        ("a.json", "[]", "neither a list of lists"),
        ("a.json", '{"other": 1}', "neither a list of lists"),
        ("a.json", "{", "is not JSON"),
        ("a.jsonl", '{"text": "a"}\n{', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", '{"text": "a"}\n{"story": "b"}', r"a\.jsonl:2 has no text under 'text', but story"),
        ("a.jsonl", '["x"]', r"a\.jsonl:1 has no text under 'text', but list"),
        ("a.jsonl", '{"text": " "}', "hold no text under 'text'"),
        ("a.safetensors", b"garbage", "truncated or no safetensors file"),
    ],
)
def test_bad_files(write, name, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read_texts(write(name, content))
    assert caught.value.exit_status == 2


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="there is no text file"):
        read_texts(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"ids": torch.zeros(2, 2)}, "holds no 'input_ids', but ids"),
        ({"input_ids": torch.zeros(2, 2)}, r"is torch\.float32 of shape \[2, 2\], not integers"),
        ({"input_ids": torch.zeros(2, dtype=torch.long)}, r"of shape \[2\], not integers"),
        ({"input_ids": torch.zeros(0, 4, dtype=torch.long)}, "is empty"),
    ],
)
def test_bad_token_tensors(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "ids.safetensors")
    with pytest.raises(InputError, match=message):
        read_texts(tmp_path / "ids.safetensors")
