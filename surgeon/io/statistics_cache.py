"""StatisticsCache: measurements in a folder, one safetensors file a key, so that planning again is quick.

A file carries its whole key, which is compared before anything is taken from it; the key covers the code
that measures as well. Files appear whole, by rename. The folder is kept below a size by removing what was
not used for the longest time. Not here: what a key is made of (`surgeon.calibrate.store`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from surgeon.errors import InputError
from surgeon.io.own_code import own_code

__all__ = ["StatisticsCache"]

LIMIT = 20 * 10**9
"""Bytes that the folder may grow to."""
FORGOTTEN = 3600
"""Seconds after which a file that was being written is taken for the leftover of a killed run."""
MEASURING = ("calibrate", "criteria", "evaluate", "rebuild", "repair", "graph", "plan")
"""Parts of this package whose code decides what a measurement is."""


class StatisticsCache:
    """Named tensors by key, below the folder `folder`.

    Raises:
        InputError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, limit: int = LIMIT) -> None:
        self.folder = Path(folder).expanduser() / "statistics"
        self.limit = limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the cache {folder} cannot be made: {error.strerror}", hint="another --cache, or --no-cache"
            ) from error
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(
                f"the cache {self.folder} may not be written to", hint="another --cache, or --no-cache"
            )

    def load(self, key: str) -> dict[str, Tensor] | None:
        """What was saved under this very key; None where there is nothing, or nothing whole."""
        said, file = self._place(key)
        try:
            with safe_open(file, "pt") as tensors:
                if (tensors.metadata() or {}).get("key") != said:
                    return None
                found = {name: tensors.get_tensor(name) for name in tensors.keys()}
            os.utime(file)
        except (OSError, SafetensorError):
            return None
        return found

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors` there; where the disk has no room for them, nothing is kept."""
        said, file = self._place(key)
        written = file.with_suffix(f".tmp-{os.getpid()}")
        try:
            save_file(_apart(tensors), written, {"key": said})
            with written.open("rb+") as stream:
                os.fsync(stream.fileno())
            written.replace(file)
        except (OSError, SafetensorError):
            with suppress(OSError):
                written.unlink()
        self._tidy(file)

    def remove(self, key: str) -> None:
        """Take away what lies there, if anything does."""
        with suppress(OSError):
            self._place(key)[1].unlink(missing_ok=True)

    def _place(self, key: str) -> tuple[str, Path]:
        said = json.dumps({"code": own_code(*MEASURING), "key": key})
        return said, self.folder / f"{hashlib.sha256(said.encode()).hexdigest()}.safetensors"

    def _tidy(self, newest: Path) -> None:
        """Remove leftovers, and what was not used for the longest time, down to the limit."""
        kept: list[tuple[float, int, Path]] = []
        for file in self.folder.iterdir():
            with suppress(OSError):
                seen = file.stat()
                if ".tmp-" in file.name and time.time() - seen.st_mtime > FORGOTTEN:
                    file.unlink()
                elif file.suffix == ".safetensors" and file != newest:
                    kept.append((seen.st_mtime, seen.st_size, file))
        size = sum(bytes_ for _, bytes_, _ in kept) + (newest.stat().st_size if newest.exists() else 0)
        for _, bytes_, file in sorted(kept):
            if size <= self.limit:
                return
            with suppress(OSError):
                file.unlink()
                size -= bytes_


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, each in a storage of its own."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != own.nbytes:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        found[name] = own
    return found
