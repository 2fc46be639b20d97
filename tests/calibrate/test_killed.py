"""A run that goes block by block and is killed goes on at its block, and gives the same bits."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from surgeon.calibrate.unfinished import Unfinished
from surgeon.io.statistics_cache import StatisticsCache
from tests.calibrate.streaming import measure
from tests.stopping import interrupted_behind

LAST = 2 * 3


@pytest.fixture
def folder(small_llama, tmp_path):
    small_llama().bfloat16().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def killed(folder, tmp_path, repo, after: int, wait: float) -> None:
    """Start a process that measures, and kill it a while after it has done `after` blocks."""
    command = [sys.executable, "-m", "tests.calibrate.streaming", str(folder), str(tmp_path / "cache")]
    process = subprocess.Popen(
        [*command, "0.3", str(tmp_path / "killed.safetensors")], cwd=repo, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= after:
            break
    time.sleep(wait)
    process.kill()
    process.stdout.close()
    process.wait()


def test_kill_9_loses_no_block(folder, tmp_path, repo):
    measure(folder, None, 0.0, tmp_path / "undisturbed.safetensors")
    chance = random.Random(7)
    for after in (chance.randrange(1, 3), last := chance.randrange(4, LAST)):
        killed(folder, tmp_path, repo, after, chance.uniform(0, 0.4))
        assert not (tmp_path / "killed.safetensors").exists()
    done = measure(folder, tmp_path / "cache", 0.0, tmp_path / "resumed.safetensors")
    assert done[0] > last  # what was put aside runs not again
    whole, resumed = (tmp_path / f"{name}.safetensors" for name in ("undisturbed", "resumed"))
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_stopped_behind_any_block_it_gives_the_same(folder, tmp_path, stop):
    measure(folder, None, 0.0, tmp_path / "undisturbed.safetensors")
    with interrupted_behind(stop):
        measure(folder, tmp_path / "cache", 0.0, tmp_path / "resumed.safetensors")
    done = measure(folder, tmp_path / "cache", 0.0, tmp_path / "resumed.safetensors")
    assert done == list(range(stop + 1, LAST + 1))
    whole, resumed = (tmp_path / f"{name}.safetensors" for name in ("undisturbed", "resumed"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_a_lost_piece_means_starting_over(tmp_path):
    store = StatisticsCache(tmp_path)
    first = Unfinished(store, "a run", 0.0)
    first.put_aside({"states/1": {}, "found/0": {}})
    assert set(Unfinished(store, "a run", 0.0).resume(lambda t: t)) == {"states/1", "found/0"}
    store.remove(first._under("found/0"))
    assert Unfinished(store, "a run", 0.0).resume(lambda t: t) == {}
    assert Unfinished(store, "another", 0.0).resume(lambda t: t) == {}
