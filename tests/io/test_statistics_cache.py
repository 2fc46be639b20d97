from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from surgeon.errors import InputError
from surgeon.io.cache_folder import default_cache
from surgeon.io.statistics_cache import StatisticsCache

TENSORS = {"of/a.weight": torch.arange(6.0, dtype=torch.float64).view(2, 3), "loss": torch.tensor(1.5)}


def files(cache: StatisticsCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def test_what_is_saved_is_found_by_its_key_alone(tmp_path):
    cache = StatisticsCache(tmp_path / "deep" / "cache")
    assert cache.load("one") is None
    cache.save("one", TENSORS)
    found = StatisticsCache(tmp_path / "deep" / "cache").load("one")
    assert found is not None
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert found["of/a.weight"].dtype == torch.float64
    assert cache.load("two") is None
    assert len(files(cache)) == 1


def test_views_of_one_storage_are_saved_each_by_itself(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    cache = StatisticsCache(tmp_path)
    cache.save("views", {"all": whole, "row": whole[1], "turned": whole.T})
    found = cache.load("views")
    assert torch.equal(found["row"], whole[1])
    assert torch.equal(found["turned"], whole.T)
    assert sum(tensor.numel() for tensor in load_file(files(cache)[0]).values()) == 28


def test_a_file_under_a_wrong_name_or_cut_short_is_not_used(tmp_path):
    cache = StatisticsCache(tmp_path)
    cache.save("one", TENSORS)
    (one,) = files(cache)
    cache.save("two", {"loss": torch.tensor(7.0)})
    (two,) = set(files(cache)) - {one}
    two.write_bytes(one.read_bytes())
    assert cache.load("two") is None
    one.write_bytes(one.read_bytes()[:-3])
    assert cache.load("one") is None
    cache.save("one", TENSORS)
    assert cache.load("one") is not None


def test_another_version_of_the_code_finds_nothing(tmp_path, monkeypatch):
    cache = StatisticsCache(tmp_path)
    cache.save("one", TENSORS)
    monkeypatch.setattr("surgeon.io.statistics_cache.own_code", lambda *parts: "of another release")
    assert cache.load("one") is None


def test_the_oldest_go_when_there_is_no_room(tmp_path):
    cache = StatisticsCache(tmp_path, limit=1500)
    for place in range(4):
        cache.save(str(place), {"t": torch.full((50,), float(place), dtype=torch.float64)})
        time.sleep(0.02)
        cache.load("0")
    assert [place for place in range(4) if cache.load(str(place)) is not None] == [0, 3]


def test_leftovers_of_killed_runs_go(tmp_path):
    cache = StatisticsCache(tmp_path)
    old, new = (cache.folder / f"{name}.tmp-1" for name in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.save("one", TENSORS)
    assert not old.exists()
    assert new.exists()


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    def full(*args):
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    cache = StatisticsCache(tmp_path)
    monkeypatch.setattr("surgeon.io.statistics_cache.save_file", full)
    cache.save("one", TENSORS)
    assert cache.load("one") is None
    assert not files(cache)


def test_remove(tmp_path):
    cache = StatisticsCache(tmp_path)
    cache.save("one", TENSORS)
    cache.remove("one")
    cache.remove("one")
    assert not files(cache)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made: .*Not a directory") as error:
        StatisticsCache(tmp_path / "file" / "cache")
    assert "--no-cache" in error.value.hint


def test_where_it_is(monkeypatch):
    monkeypatch.setenv("SURGEON_CACHE", "/some/where")
    assert default_cache() == Path("/some/where")
    monkeypatch.delenv("SURGEON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/surgeon")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "surgeon"
