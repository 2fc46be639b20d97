"""Tensors that wait: the same elements, and memory for no more than the budget."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
import torch

from surgeon.errors import SurgeonError
from surgeon.io.waiting import Waiting


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64], ids=str)
def test_past_the_budget_elements_come_from_a_file(tmp_path, dtype):
    one, other = torch.arange(60).view(6, 10).to(dtype), torch.arange(60, 120).view(6, 10).to(dtype).T
    waiting = Waiting(one.nbytes, tmp_path)
    assert waiting.keep(one) is one
    filed = waiting.keep(other)
    assert filed is not other
    assert torch.equal(filed, other)
    assert filed.dtype == dtype
    assert not list(tmp_path.iterdir())  # no name that a killed process could leave behind


def test_what_is_let_go_makes_room(tmp_path):
    waiting = Waiting(80, tmp_path)
    held = waiting.keep(torch.ones(10, dtype=torch.float64))
    assert waiting.held == 80
    del held
    gc.collect()
    again = torch.ones(10, dtype=torch.float64)
    assert waiting.keep(again) is again


def test_what_waits_in_files_is_not_in_memory(tmp_path):
    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])

    waiting, before = Waiting(0, tmp_path), resident()
    # 252 MB in tensors so large that the allocator gives each back at once, whatever the heap is like.
    kept = [waiting.keep(torch.full((10 << 20,), float(place))) for place in range(6)]
    assert resident() - before < 64e6
    assert [float(tensor[7]) for tensor in kept] == list(range(6))


def test_no_room_is_one_message(tmp_path):
    with pytest.raises(SurgeonError, match="cannot be put into") as caught:
        Waiting(0, tmp_path / "absent").keep(torch.ones(3))
    assert "fewer samples" in str(caught.value)


def test_nothing_needs_no_file(tmp_path):
    assert Waiting(0, tmp_path / "absent").keep(torch.ones(0)).numel() == 0


def test_what_was_read_of_files_does_not_add_up(tmp_path):
    size = 8 << 20
    waiting = Waiting(0, tmp_path)
    before, held = pages_of_files(), []
    for number in range(6):
        held.append(waiting.keep(torch.full((size // 4,), float(number))))
        assert (held[-1] == number).all()
    assert pages_of_files() - before < 2 * size
    assert all((tensor == number).all() for number, tensor in enumerate(held))


def pages_of_files() -> int:
    """Bytes of mapped files that the process has in memory."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssFile"].split()[0]) * 1024
