"""Findings: a model's Graph and what its config fields move, kept in a folder by all that they depend on.

Both follow from the config alone, and finding them takes longer than everything else that is done when a
plan is made again. The key covers the config, the class that it builds with its source, the code that finds,
and the versions of what that code stands on. Nothing is kept of a model that transformers does not define,
or where a plugin added rules. Files are pickles that may hold data only: what they name must be a class of
this package, of networkx, or a config. Not here: measurements on text (`statistics_cache`).
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import pickle
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedConfig

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.io.data_pickle import DataUnpickler
from surgeon.io.fingerprint import PASSING
from surgeon.io.own_code import own_code
from surgeon.rebuild import ConfigSpace
from surgeon.rebuild.skeleton import architecture
from surgeon.trace.rule import rules

__all__ = ["FINDING", "STANDING_ON", "Findings", "findings_key"]

FINDING = ("trace", "rebuild", "graph", "plan")
"""Parts of this package whose code decides what is found."""
STANDING_ON = ("torch", "transformers", "networkx")
MOST = 200
"""Models that are kept; those that were not used for the longest time go."""


class Findings:
    """What was found of models, below `folder`; a folder that cannot be written to keeps nothing."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser() / "models"

    def load(self, config: PreTrainedConfig) -> tuple[Graph, ConfigSpace] | None:
        """What was found of the model that `config` builds; None where nothing is known."""
        key = findings_key(config)
        if key is None:
            return None
        file = self._place(key)
        try:
            said, _, body = file.read_bytes().partition(b"\n")
            if said != key:
                return None
            graph, shallow, fields, depths = _Data(io.BytesIO(body)).load()
            os.utime(file)
        except (OSError, ValueError, TypeError, AttributeError, EOFError, ImportError, pickle.PickleError):
            return None
        return graph, ConfigSpace(config, shallow, fields, depths)

    def save(self, config: PreTrainedConfig, graph: Graph, space: ConfigSpace) -> None:
        """Keep what was found; where that cannot be done, nothing is."""
        key = findings_key(config)
        if key is None:
            return
        file = self._place(key)
        written = file.with_suffix(f".tmp-{os.getpid()}")
        try:
            body = pickle.dumps((graph, space.shallow, space.fields, space.depths))
            _Data(io.BytesIO(body)).load()
            self.folder.mkdir(parents=True, exist_ok=True)
            written.write_bytes(key + b"\n" + body)
            written.replace(file)
            for old in sorted(self.folder.glob("*.pickle"), key=lambda f: -f.stat().st_mtime)[MOST:]:
                old.unlink()
        except (OSError, TypeError, AttributeError, pickle.PickleError):
            with suppress(OSError):
                written.unlink()

    def _place(self, key: bytes) -> Path:
        return self.folder / f"{hashlib.sha256(key).hexdigest()}.pickle"


class _Data(DataUnpickler):
    """Takes graphs of networkx, configs, and types of numbers too."""

    def may_hold(self, part: str, name: str) -> bool:
        if part == "torch":
            return name in ("float16", "bfloat16", "float32", "float64")
        return part in ("networkx", "transformers") or super().may_hold(part, name)

    def is_data(self, part: str, found: object) -> bool:
        if part == "transformers":
            return isinstance(found, type) and issubclass(found, PreTrainedConfig)
        return super().is_data(part, found) and (part != "networkx" or isinstance(found, type))


def findings_key(config: PreTrainedConfig) -> bytes | None:
    """All that findings depend on, in one line; None where that cannot be told."""
    if any(not rules.origin(name).startswith("surgeon.") for name in rules.names()):
        return None
    try:
        built = architecture(config)
        source = inspect.getsource(inspect.getmodule(built) or built)
    except (RebuildError, OSError, TypeError):
        return None
    if not all(kind.__module__.startswith("transformers.") for kind in (type(config), built)):
        return None
    fields = json.loads(config.to_json_string(use_diff=False))
    said = {
        "code": own_code(*FINDING),
        "versions": [sys.version, *(f"{name} {version(name)}" for name in STANDING_ON)],
        "class": [type(config).__qualname__, built.__qualname__],
        "source": hashlib.sha256(source.encode()).hexdigest(),
        "config": {key: value for key, value in fields.items() if key not in PASSING},
    }
    return json.dumps(said, sort_keys=True).encode()
