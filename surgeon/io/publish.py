"""An output folder appears whole, by one rename, or not at all.

Everything is written into a hidden folder beside the output, on the same filesystem, and flushed to
disk before it is renamed. A run that is killed leaves such a folder behind; the next run for the same
output goes on in it where it does the same work, and else removes it. One run at a time writes an output.
Not here: what is written (`writer`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from surgeon.errors import InputError

__all__ = ["check_output", "check_space", "publishing"]

MARK = ".surgeon-tmp-"
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)


def check_output(out: str | Path, model: str | Path | None = None) -> Path:
    """The absolute path of an output folder that may be written.

    Args:
        out: where the output shall appear.
        model: the folder that is read, which must stay as it is; None where it is not a folder.

    Raises:
        InputError: `out` exists, lies inside `model` or around it, or cannot be made.
    """
    path = Path(out).expanduser().absolute()
    if path.exists() or path.is_symlink():
        raise InputError(f"the output {path} exists", hint="another --out, or remove it first")
    where = path.resolve()
    if model is not None:
        source = Path(model).expanduser().resolve()
        if source in where.parents:
            raise InputError(f"the output {path} lies inside the model folder {source}", hint="another --out")
        if where in source.parents:
            raise InputError(f"the model folder {source} lies inside the output {path}", hint="another --out")
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"the output {path} cannot be made: {above} is no folder that may be written to")
    return path


def check_space(out: Path, needed: int) -> None:
    """Refuse an output that its filesystem has no room for.

    Raises:
        InputError: with both numbers.
    """
    above = next(parent for parent in out.parents if parent.exists())
    free = shutil.disk_usage(above).free
    if free < needed:
        raise InputError(
            f"the output {out} needs about {_size(needed)}, {above} has {_size(free)} free",
            hint="free some space, or another --out",
        )


@contextmanager
def publishing(
    out: str | Path,
    model: str | Path | None = None,
    needed: int = 0,
    key: str | None = None,
    *,
    durable: bool = True,
) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the context ends without an exception.

    Args:
        out: where the output shall appear.
        model: the folder that is read, as for `check_output`.
        needed: bytes that will be written.
        key: identifies the work. What a killed or interrupted run of the same key has written is still in
            the folder; without a key, it begins empty, and nothing is left of an interrupted run.
        durable: wait until everything is on the disk, so that not even a power cut leaves a broken output.

    Raises:
        InputError: the output may not be written, its filesystem is full, or another run is writing it.
    """
    path = check_output(out, model)
    made = _make_parents(path)
    published = False
    try:
        folder = path.parent / f".{path.name}{MARK}{key or os.getpid()}"
        with _held(folder, path, resumable=key is not None):
            _remove_leftovers(path, folder)
            check_space(path, needed - _used(folder))
            yield folder
            _flush(folder, durable)
            check_output(path, model)
            folder.rename(path)
            _flush_one(path.parent)
            published = True
    except OSError as error:
        if error.errno in FULL:
            raise _full(path) from error
        if error.errno in REFUSED:
            raise InputError(f"the output {path} cannot be written: {error.strerror}") from error
        raise
    except Exception as error:
        # The writer of safetensors wraps the system's error in its own, of which only the text is left.
        if os.strerror(errno.ENOSPC) in str(error):
            raise _full(path) from error
        raise
    finally:
        for parent in () if published else made:
            if not any(parent.iterdir()):
                parent.rmdir()


@contextmanager
def _held(folder: Path, path: Path, resumable: bool) -> Iterator[None]:
    """Make `folder` and hold it, so that no other run takes it; remove it if it stays for nobody."""
    folder.mkdir(exist_ok=resumable)
    handle = os.open(folder, os.O_RDONLY)
    keep = False
    try:
        if not _lock(handle):
            keep = True
            raise _busy(path)
        yield
    except KeyboardInterrupt:
        keep = resumable
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _remove_leftovers(path: Path, own: Path) -> None:
    """Remove what killed runs for the same output left; the lock of a dead process is released.

    Raises:
        InputError: another run is writing the output.
    """
    for folder in path.parent.glob(f".{path.name}{MARK}*"):
        if folder == own:
            continue
        handle = os.open(folder, os.O_RDONLY)
        try:
            if not _lock(handle):
                raise _busy(path)
            shutil.rmtree(folder)
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy(path: Path) -> InputError:
    return InputError(
        f"another run is writing the output {path}", hint="wait for it, end it, or give another --out"
    )


def _used(folder: Path) -> int:
    """Bytes that an earlier run has written."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _make_parents(path: Path) -> tuple[Path, ...]:
    """Make the folders above `path`; the new ones, innermost first."""
    new = tuple(parent for parent in path.parents if not parent.exists())
    path.parent.mkdir(parents=True, exist_ok=True)
    return new


def _flush(folder: Path, durable: bool) -> None:
    """Everything readable by whom the folder is (safetensors writes for the owner alone), and to the disk."""
    mode = folder.stat().st_mode & 0o666
    for place, _, files in os.walk(folder):
        for file in files:
            Path(place, file).chmod(mode)
            if durable:
                _flush_one(Path(place, file))
        if durable:
            _flush_one(Path(place))


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _full(path: Path) -> InputError:
    free = shutil.disk_usage(path.parent).free
    return InputError(
        f"no space left on the filesystem of {path} ({_size(free)} free); nothing was published",
        hint="free some space, or another --out",
    )


def _size(count: int) -> str:
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.3g} {unit}"
