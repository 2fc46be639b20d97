"""JSON documents on disk: read with a clear error, written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from surgeon.errors import InputError

__all__ = ["read_document", "write_document"]


def write_document(document: Mapping[str, object], path: str | Path) -> None:
    """Write `document` as JSON; an existing file is replaced at once, or stays.

    Raises:
        InputError: the file cannot be written.
    """
    file = Path(path).expanduser()
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def read_document(path: str | Path) -> object:
    """The JSON value in a file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    file = Path(path).expanduser()
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
