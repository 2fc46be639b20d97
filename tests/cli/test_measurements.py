from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.cli.measurements import measurements, reports
from surgeon.errors import InputError


def test_the_folder_asked_for_or_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "own"))
    assert measurements(tmp_path / "said", False) == tmp_path / "said"
    assert measurements(None, False) == tmp_path / "own"
    assert measurements(None, True) is None


def test_both_at_once():
    with pytest.raises(InputError, match="--cache and --no-cache contradict"):
        measurements(Path("x"), True)


def test_a_cache_of_the_users_that_cannot_be_made_is_a_warning(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "file" / "cache"))
    assert measurements(None, False) is None
    assert "measurements are not kept" in capsys.readouterr().err


def test_the_first_of_several_processes_reports(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert reports()
    monkeypatch.setenv("RANK", "1")
    assert not reports()
