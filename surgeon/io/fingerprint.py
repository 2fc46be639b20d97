"""What identifies a checkpoint: a hash that is cheap at any size.

Honest about what it is: the whole config and all headers are hashed, of every tensor up to `SAMPLES`
evenly spread pieces of `PIECE` bytes. A fine-tune, another seed or a cast changes it; a change of a few
values between the pieces of a large tensor does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from surgeon.errors import CheckpointError
from surgeon.io.header import TensorHeader

__all__ = ["PASSING", "fingerprint_of"]

SAMPLES = 16
PIECE = 4096
PASSING = ("_name_or_path", "transformers_version")
"""Config fields that change without the model changing."""


def fingerprint_of(config: Path, tensors: Mapping[str, TensorHeader]) -> str:
    """``sha256:…`` of a config file and the tensors of its folder.

    Raises:
        CheckpointError: a file of weights is gone, or cannot be read.
    """
    fields = {key: value for key, value in json.loads(config.read_bytes()).items() if key not in PASSING}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
        try:
            with tensor.file.open("rb") as stream:
                for start, length in _pieces(tensor.end - tensor.start):
                    stream.seek(tensor.start + start)
                    digest.update(stream.read(length))
        except OSError as error:
            raise CheckpointError(
                f"{tensor.file} cannot be read: {error.strerror}", hint="put the file back, and run again"
            ) from error
    return f"sha256:{digest.hexdigest()}"


def _pieces(size: int) -> list[tuple[int, int]]:
    """Start and length of what is hashed of `size` bytes."""
    if size <= SAMPLES * PIECE:
        return [(0, size)]
    return [(place * (size - PIECE) // (SAMPLES - 1), PIECE) for place in range(SAMPLES)]
