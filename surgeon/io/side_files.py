"""What goes along with the weights, and how large a file of them may be. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from surgeon.errors import InputError
from surgeon.io.checksums import SUMS
from surgeon.io.weights import is_weight_file

__all__ = ["OURS", "parse_size", "side_files"]

OURS = frozenset(
    {
        "config.json",
        "README.md",
        "surgeon.yaml",
        "plan.json",
        "report.json",
        ".gitattributes",
        "modeling_per_layer.py",
        "plan.copies.json",
        SUMS,
    }
)
"""Files that are written anew."""
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", re.IGNORECASE)
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int:
    """Bytes of a size in words: ``5GB`` and ``500MB`` are decimal, ``5GiB`` is binary.

    Raises:
        InputError: it is none.
    """
    match = SIZE.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise InputError(f"'{text}' is no size of a file", hint="a number and a unit, such as 5GB or 500MB")
    unit = match[2].upper().removesuffix("B")
    base = 1024 if unit.endswith("I") else 1000
    return int(float(match[1]) * base ** POWERS[unit.removesuffix("I")])


def side_files(original: Path) -> list[Path]:
    """Plain visible files that are neither weights nor written anew."""
    return sorted(
        file
        for file in original.iterdir()
        if file.is_file()
        and not file.name.startswith(".")
        and file.name not in OURS
        and not is_weight_file(file.name)
    )
