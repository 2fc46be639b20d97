"""Whether a model may be held in memory is told from its size, before it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surgeon.api.room import SHARE, room_for
from surgeon.io import memory
from surgeon.io.memory import free_memory


@pytest.mark.parametrize(("dtype", "bytes_each"), [(torch.bfloat16, 6), (torch.float32, 8)])
def test_in_its_own_dtype_and_in_float32(dtype, bytes_each):
    module = nn.Linear(10, 7, bias=False, dtype=dtype, device="meta")
    assert room_for(module, 70 * bytes_each)
    assert not room_for(module, 70 * bytes_each - 1)


def test_a_share_of_what_is_free(monkeypatch):
    module = nn.Linear(10, 7, bias=False, device="meta")
    for free, fits in ((70 * 8 * SHARE, True), (70 * 8 * SHARE - SHARE, False)):
        monkeypatch.setattr("surgeon.api.room.free_memory", lambda free=free: free)
        assert room_for(module) is fits


def test_the_limit_of_a_container_is_minded(monkeypatch, tmp_path):
    files = {
        "/proc/meminfo": "MemTotal: 900 kB\nMemAvailable: 500 kB\n",
        "/sys/fs/cgroup/memory.max": "300000\n",
        "/sys/fs/cgroup/memory.current": "100000\n",
    }
    for name, text in files.items():
        (tmp_path / name.replace("/", "_")).write_text(text)
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path / name.replace("/", "_"))
    assert free_memory() == 200_000
    (tmp_path / "_sys_fs_cgroup_memory.max").write_text("max\n")
    assert free_memory() == 500 * 1024
    (tmp_path / "_sys_fs_cgroup_memory.max").unlink()
    assert free_memory() == 500 * 1024
