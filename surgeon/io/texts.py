"""Texts for calibration and evaluation: text files, token ids, records with a text field, folders.

Not here: the tokenizer (`checkpoint`), and how samples are cut (`surgeon.calibrate`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from surgeon.errors import InputError

__all__ = ["TextFile", "read_texts"]

IDS = "input_ids"
FIELD = "text"
IN_FOLDERS = (".txt", ".jsonl")
SHOWN_BYTES = 60


@dataclass(frozen=True)
class TextFile:
    """What one path holds: `documents` of text, or `rows` of token ids; the other is empty."""

    path: Path
    documents: tuple[str, ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()


def read_texts(path: str | Path, field: str | None = None) -> TextFile:
    """Read one path by its suffix.

    ``.safetensors`` holds token ids [rows, length] as ``input_ids``; ``.json`` a list of lists of ids or
    a list of texts; ``.jsonl`` one record a line, with the text in `field` (default ``text``); a folder
    is read for its ``.txt`` files, each one document, and its ``.jsonl`` files; anything else is one
    document of UTF-8 text.

    Raises:
        InputError: nothing there, nothing in it, or not what its suffix says.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        files = sorted(part for part in file.rglob("*") if part.suffix in IN_FOLDERS and part.is_file())
        if not files:
            raise InputError(f"the text folder {file} holds no .txt or .jsonl file")
        return TextFile(file, tuple(text for part in files for text in read_texts(part, field).documents))
    if not file.is_file():
        raise InputError(f"there is no text file {file}", hint="paths start at the recipe's folder")
    match file.suffix:
        case ".safetensors":
            return TextFile(file, rows=_tensor_rows(file))
        case ".json":
            return _json(file)
        case ".jsonl":
            return TextFile(file, _records(file, field or FIELD))
        case _:
            return TextFile(file, (_text(file),))


def _text(file: Path) -> str:
    raw = _bytes(file)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not text: byte {error.start} is {raw[error.start]:#04x}, which is no UTF-8",
            hint="a text file in UTF-8, or token ids in .safetensors or .json",
        ) from error
    if "\0" in text:
        raise InputError(
            f"{file} is not text: byte {raw.index(0)} is zero",
            hint="a text file in UTF-8, or token ids in .safetensors or .json",
        )
    if not text.strip():
        raise InputError(f"the text file {file} is empty")
    return text


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


def _tensor_rows(file: Path) -> tuple[tuple[int, ...], ...]:
    try:
        with safe_open(file, "pt") as tensors:
            names = list(tensors.keys())
            ids = tensors.get_tensor(IDS) if IDS in names else None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is truncated or no safetensors file: {error}") from error
    if ids is None:
        raise InputError(f"{file} holds no '{IDS}', but {', '.join(names) or 'nothing'}")
    if ids.ndim != 2 or ids.is_floating_point() or ids.is_complex():
        raise InputError(
            f"'{IDS}' in {file} is {ids.dtype} of shape {list(ids.shape)}, not integers [rows, length]"
        )
    if ids.numel() == 0:
        raise InputError(f"'{IDS}' in {file} is empty, of shape {list(ids.shape)}")
    return tuple(tuple(row) for row in ids.tolist())


def _json(file: Path) -> TextFile:
    try:
        value = json.loads(_text(file))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    items = value.get(IDS) if isinstance(value, dict) else value
    if isinstance(items, list) and items:
        if all(isinstance(item, str) and item.strip() for item in items):
            return TextFile(file, tuple(items))
        if all(isinstance(row, list) and row and all(type(i) is int for i in row) for row in items):
            return TextFile(file, rows=tuple(tuple(row) for row in items))
    raise InputError(
        f"{file} holds neither a list of lists of token ids nor a list of texts",
        hint="such as [[1, 15, 7], [1, 9, 4]]; no row may be empty",
    )


def _records(file: Path, field: str) -> tuple[str, ...]:
    documents: list[str] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{file}:{number} is not JSON: {line[:SHOWN_BYTES]}") from error
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            keys = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise InputError(
                f"{file}:{number} has no text under '{field}', but {keys}",
                hint="name the field with calibration.field",
            )
        documents.append(record[field])
    if not any(document.strip() for document in documents):
        raise InputError(f"the records of {file} hold no text under '{field}'")
    return tuple(documents)
