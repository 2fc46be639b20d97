"""Texts of a dataset on the hub, or in a folder that the package ``datasets`` reads."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from surgeon.errors import InputError
from surgeon.io.texts import FIELD, TextFile

__all__ = ["read_dataset"]


def read_dataset(name: str, split: str, config: str | None = None, field: str | None = None) -> TextFile:
    """One document a row.

    Args:
        name: id on the hub, or a folder.
        split: as the package takes it, a slice included: ``train[:2000]``.
        config: which one, of a dataset that has several.
        field: the column that holds the text; by default ``text``.

    Raises:
        InputError: the package is absent, the dataset cannot be had, or it has no such text.
    """
    if find_spec("datasets") is None:
        raise InputError(
            f"the dataset '{name}' needs the package datasets", hint="pip install datasets, or a text file"
        )
    from datasets import load_dataset

    try:
        found = load_dataset(name, config, split=split)
    except Exception as error:  # the package raises from half a dozen libraries
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise InputError(
            f"the dataset '{name}' cannot be read: {type(error).__name__}: {first}",
            hint="a dataset that this machine has in its cache or can download, or a text file without split",
        ) from error
    column = field or FIELD
    if column not in (found.column_names or ()):
        raise InputError(
            f"the dataset '{name}' has no column '{column}', but {', '.join(found.column_names or ())}",
            hint="name it with field",
        )
    documents = tuple(text for text in found[column] if isinstance(text, str) and text.strip())
    if not documents:
        raise InputError(f"the column '{column}' of '{name}' ({split}) holds no text")
    return TextFile(Path(name), documents)
