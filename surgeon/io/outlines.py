"""Outlines: all that planning asks of a model, kept so that it need not be built to be asked again.

The Graph without its evidence, the names under which parameters lie on disk, and answers about its config.
They follow from the config, from what the files of weights say of their tensors, and from the code that
finds out; reading them takes neither torch nor transformers. Nothing counts any more once a file of the
model's code was changed. Not here: who finds out (`surgeon.api.outlining`), and graphs with their evidence
(`findings`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from surgeon.graph import Graph
from surgeon.io.data_pickle import DataUnpickler
from surgeon.io.header import TensorHeader
from surgeon.io.own_code import own_code
from surgeon.io.side_files import side_files
from surgeon.plan.answers import Answers

__all__ = ["Outline", "Outlines"]

TELLING = ("trace", "rebuild", "graph", "plan", "io")
"""Parts of this package whose code decides what an outline says."""
STANDING_ON = ("torch", "transformers")
MOST = 200
"""Models that are kept; those that were not used for the longest time go."""


@dataclass(frozen=True)
class Outline:
    """What is known of a model.

    `width` is the bytes of one of its weights. `stored` gives, for every parameter that lies on disk as it
    is, its name there. `answers` are those of `surgeon.plan.answers`, and what a Plan comes to.
    """

    graph: Graph
    width: int
    stored: Mapping[str, str]
    answers: Answers


class Outlines:
    """The outline of one checkpoint, below the folder `cache`; one that cannot be written to keeps nothing.

    Args:
        cache: where it is kept.
        folder: the checkpoint, with a ``config.json``.
        tensors: its tensors, by their names on disk.
    """

    def __init__(self, cache: str | Path, folder: Path, tensors: Mapping[str, TensorHeader]) -> None:
        said = json.dumps(
            {
                "code": own_code(*TELLING),
                "versions": [sys.version, *map(_version, STANDING_ON)],
                "config": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest(),
                "beside": [file.name for file in side_files(folder)],
                "tensors": [(name, one.dtype, one.shape) for name, one in sorted(tensors.items())],
            }
        )
        key = hashlib.sha256(said.encode()).hexdigest()
        self._model = Path(cache).expanduser() / "models" / f"{key}.outline"
        self._answers = self._model.with_suffix(".answers.json")

    def load(self) -> Outline | None:
        """What is kept of the model; None where nothing is, or nothing that still holds."""
        try:
            read: Any = json.loads(self._answers.read_bytes())
            if any(list(_stamp(Path(file))) != stamp for file, stamp in read["code"].items()):
                return None
            parts = DataUnpickler(io.BytesIO(self._model.read_bytes())).load()
            for file in (self._answers, self._model):
                os.utime(file)
            return Outline(Graph(*parts), int(read["width"]), dict(read["stored"]), Answers(read["answers"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, ImportError):
            return None
        except pickle.PickleError:
            return None

    def save(self, outline: Outline, code: Iterable[str]) -> None:
        """Keep an outline; where that cannot be done, nothing is.

        Args:
            outline: of this checkpoint.
            code: files of the code that makes the model what it is.
        """
        graph = outline.graph
        parts = (graph.model_type, graph.groups, graph.stacks, dict(graph.parameters), None, graph.notes)
        document = {
            "code": {file: _stamp(Path(file)) for file in code},
            "width": outline.width,
            "stored": dict(outline.stored),
            "answers": outline.answers.known,
        }
        try:
            body = pickle.dumps(parts)
            DataUnpickler(io.BytesIO(body)).load()
            self._model.parent.mkdir(parents=True, exist_ok=True)
            _put(self._model, body)
            _put(self._answers, json.dumps(document).encode())
            kept = sorted(self._model.parent.glob("*.outline"), key=lambda file: -file.stat().st_mtime)
            for old in kept[MOST:]:
                old.unlink()
                old.with_suffix(".answers.json").unlink(missing_ok=True)
        except (OSError, TypeError, ValueError, AttributeError, pickle.PickleError):
            return


def _put(file: Path, body: bytes) -> None:
    """Write a file whole."""
    draft = file.with_suffix(f".tmp-{os.getpid()}")
    try:
        draft.write_bytes(body)
        draft.replace(file)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _stamp(file: Path) -> tuple[int, int]:
    seen = file.stat()
    return seen.st_size, seen.st_mtime_ns
