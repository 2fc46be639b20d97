"""What tells one start of the machine from the next."""

from __future__ import annotations

import subprocess
import sys

from surgeon.io import boot


def test_another_process_is_told_the_same():
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from surgeon.io.boot import BOOT_ID, boot_id; print(BOOT_ID.exists(), boot_id())",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[0] == "False" or said[1] == boot.boot_id()


def test_where_nothing_tells_no_other_process_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(boot, "BOOT_ID", tmp_path / "not there")
    boot.boot_id.cache_clear()
    try:
        mine = boot.boot_id()
        assert mine == boot.boot_id()
        boot.boot_id.cache_clear()
        assert mine != boot.boot_id()
    finally:
        boot.boot_id.cache_clear()
