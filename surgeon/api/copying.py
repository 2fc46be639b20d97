"""`copy`: carry out a plan that only selects, by copying bytes; neither torch nor transformers is imported.

Nothing is compared with the masked original: `surgeon verify` does it on demand. Not here: plans that
compute, and the proof before publishing (`surgeon.api.replay`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from surgeon.api.progress import Progress, silent
from surgeon.io.checksums import write_checksums
from surgeon.io.copies import copies_file, copies_key, read_copies
from surgeon.io.documents import write_page
from surgeon.io.hub import local_folder
from surgeon.io.publish import check_output, publishing
from surgeon.io.shards import Piece, Told, write_shards
from surgeon.io.side_files import parse_size, side_files
from surgeon.io.weights import find_weights

__all__ = ["copy", "write_copied"]


def copy(
    plan: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    shard_size: str = "5GB",
    checksums: bool = False,
    progress: Progress = silent,
) -> bool:
    """Publish `out` as the copies beside the file `plan` say; False where there are none for this model.

    Args:
        plan: a plan file of `surgeon plan`.
        model: folder of the checkpoint that it was made for.
        out: folder to write; it must not exist.
        shard_size: largest size of one file of weights.
        checksums: write ``SHA256SUMS`` of all files, and wait until everything is on the disk.
        progress: told how many bytes are written.

    Raises:
        InputError: the output cannot be written, or a file is broken; nothing is published.
    """
    file, folder = Path(plan).expanduser(), local_folder(model)
    if folder is None or not copies_file(file).is_file() or not (folder / "config.json").is_file():
        return False
    size = parse_size(shard_size)
    target = check_output(out, folder)
    found = read_copies(file, folder, find_weights(folder))
    if found is None:
        return False
    needed = sum(piece.nbytes for piece in found.pieces)
    key = copies_key(file, found, shard_size)
    with publishing(target, folder, needed, key, durable=checksums) as staging:
        told = partial(progress, "copy")
        sums = write_copied(staging, folder, found.pieces, found.pages, size, told, checksums)
        shutil.copyfile(file, staging / "plan.json")
        if checksums:
            write_checksums(staging, sums)
    return True


def write_copied(
    staging: Path,
    folder: Path,
    pieces: Iterable[Piece],
    pages: Mapping[str, str],
    shard_size: int,
    told: Told,
    checksums: bool = False,
) -> dict[str, str]:
    """Write weights, text files and what the source carries along; the SHA-256 of the weights' files.

    Args:
        staging: folder to write into.
        folder: the source, whose tokenizer and other side files go along.
        pieces: the tensors.
        pages: texts by file name.
        shard_size: bytes of the largest file of weights.
        told: told how many bytes are written.
        checksums: compute them, and wait until the weights are on the disk.
    """
    sums = write_shards(staging, pieces, shard_size, told, checksums=checksums, durable=checksums)
    for side in side_files(folder):
        shutil.copyfile(side, staging / side.name)
    for name, text in pages.items():
        write_page(text, staging / name)
    return sums
