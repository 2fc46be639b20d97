"""Whole Graphs as text: a change of any Site, name, lock or sublayer shows up as a diff.

``SURGEON_REGENERATE=1 pytest tests/trace/test_golden.py`` writes the dumps anew; read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.trace.dump import dump
from tests.trace.families import graph_of

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
DUMPS = {
    "dense": "llama-mha",
    "grouped-query": "llama",
    "fused-qkv": "phi3",
    "interleaved-qkv": "gptneox",
    "tied": "llama-tied",
    "moe": "mixtral",
}


@pytest.mark.parametrize("name", DUMPS)
def test_the_graph_is_the_one_on_file(name):
    file = GOLDEN / f"{name}.txt"
    text = dump(graph_of(DUMPS[name]))
    if os.environ.get("SURGEON_REGENERATE"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_every_file_has_its_test():
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(DUMPS)
