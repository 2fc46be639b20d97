"""The output folder appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from surgeon.errors import InputError
from surgeon.io import check_output, check_space, publishing

# The file alone, so that the process starts at once: its package imports torch.
WRITER = """
import importlib.util
import sys
spec = importlib.util.spec_from_file_location("publish", sys.argv[1])
publish = importlib.util.module_from_spec(spec)
spec.loader.exec_module(publish)
with publish.publishing(sys.argv[2]) as folder:
    (folder / "whole").write_text("no")
    print("writing", flush=True)
    sys.stdin.readline()
    (folder / "whole").write_text("yes")
"""


def _hear_interrupts():
    """A suite run in the background ignores interrupts, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def writer(tmp_path):
    """Start a process that writes an output and waits in the middle of it."""
    started = []

    def start():
        file = publishing.__wrapped__.__code__.co_filename
        command = [sys.executable, "-c", WRITER, file, str(tmp_path / "out")]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_interrupts,
        )
        started.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_appears_at_the_end(tmp_path):
    out = tmp_path / "new" / "out"
    with publishing(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        assert not out.exists()
    assert names(out) == ["sub"]
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_an_exception_leaves_nothing(tmp_path, error):
    def write():
        with publishing(tmp_path / "new" / "deep" / "out") as folder:
            (folder / "a").write_text("1")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == []


def test_parents_that_others_use_stay(tmp_path):
    def write():
        with publishing(tmp_path / "new" / "out"):
            (tmp_path / "new" / "theirs").write_text("1")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write()
    assert names(tmp_path / "new") == ["theirs"]


def test_killed_in_the_middle(tmp_path, writer):
    process = writer()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    assert len(names(tmp_path)) == 1
    with publishing(tmp_path / "out") as folder:
        assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == ["out"]


def test_interrupted_in_the_middle(tmp_path, writer):
    process = writer()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert names(tmp_path) == []


def test_killed_at_any_moment(tmp_path, writer):
    """Absent or complete, whenever the kill comes."""
    seen = set()
    for delay in (0, 0.0003, 0.001, 0.003, None):
        process = writer()
        process.stdin.write("\n")
        process.stdin.flush()
        if delay is not None:
            time.sleep(delay)
            process.kill()
        process.communicate()
        out = tmp_path / "out"
        seen.add(out.exists())
        if out.exists():
            assert (out / "whole").read_text() == "yes"
            shutil.rmtree(out)
    assert True in seen


def test_one_run_at_a_time(tmp_path, writer):
    process = writer()
    with pytest.raises(InputError, match="another run is writing the output"), publishing(tmp_path / "out"):
        pytest.fail("two at once")
    assert len(names(tmp_path)) == 1
    process.communicate("\n")
    assert process.returncode == 0
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["whole"]


def test_two_runs_of_the_same_work(tmp_path):
    with publishing(tmp_path / "out", key="a") as folder:
        (folder / "whole").write_text("yes")
        with (
            pytest.raises(InputError, match="another run is writing the output"),
            publishing(tmp_path / "out", key="a"),
        ):
            pytest.fail("two at once")
    assert names(tmp_path / "out") == ["whole"]


def test_the_same_work_goes_on_and_other_work_begins_anew(tmp_path):
    def interrupted(key):
        with publishing(tmp_path / "out", key=key) as folder:
            found = names(folder)
            (folder / f"part-{key}").write_text("1")
            raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        interrupted("a")
    assert not (tmp_path / "out").exists()
    with publishing(tmp_path / "out", key="a") as folder:
        assert names(folder) == ["part-a"]
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        interrupted("a")
    with publishing(tmp_path / "out", key="b") as folder:
        assert names(folder) == []
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_existing_output_is_refused(tmp_path, kind):
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "link": lambda: out.symlink_to("nowhere")}[kind]()
    with pytest.raises(InputError, match="exists"):
        check_output(out)


def test_output_appearing_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="exists"), publishing(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert names(tmp_path) == ["out"]


def test_output_and_model_apart(tmp_path):
    model = tmp_path / "a" / "model"
    model.mkdir(parents=True)
    (tmp_path / "link").symlink_to(model)
    for inside in (model / "out", model / "deep" / "out", tmp_path / "link" / "out"):
        with pytest.raises(InputError, match="lies inside the model folder"):
            check_output(inside, model)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(InputError, match="lies inside the output"):
        check_output(tmp_path / "a", model)
    assert check_output(tmp_path / "b", model) == tmp_path / "b"


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is no folder that may be written to"):
        check_output(tmp_path / "file" / "out")


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with publishing("out"):
        pass
    assert names(tmp_path) == ["out"]


def test_too_little_space_is_refused_beforehand(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 5_000_000))
    with pytest.raises(InputError, match=r"needs about 70 MB, .* has 5 MB free"):
        check_space(tmp_path / "out", 70_000_000)
    with (
        pytest.raises(InputError, match="needs about 70 MB"),
        publishing(tmp_path / "new" / "out", None, 7 * 10**7),
    ):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, "quota"),
        RuntimeError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)"),
    ],
)
def test_no_space_while_writing(tmp_path, error):
    with pytest.raises(InputError, match="no space left on the filesystem"), publishing(tmp_path / "out"):
        raise error
    assert names(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="odd"), publishing(tmp_path / "out"):
        raise OSError(errno.EIO, "odd")


def test_files_are_readable_by_whom_the_folder_is(tmp_path):
    before = os.umask(0o022)
    try:
        with publishing(tmp_path / "out") as folder:
            (folder / "private").write_text("x")
            (folder / "private").chmod(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "private").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOENT])
def test_a_place_that_turns_out_not_to_be_writable(tmp_path, number):
    with pytest.raises(InputError, match="cannot be written"), publishing(tmp_path / "out"):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


def test_without_waiting_for_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("waited"))
    with monkeypatch.context() as patch:
        patch.setattr("surgeon.io.publish._flush_one", lambda path: None)  # that of the folder above
        with publishing(tmp_path / "out", durable=False) as folder:
            (folder / "a").write_text("1")
    assert names(tmp_path / "out") == ["a"]
