"""Memory that is used again: only when nobody holds what lay in it, and never more than may be kept."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgeon.rebuild import room as module
from surgeon.rebuild.room import LINE, SPARE, Room, empty_bytes, empty_tensor


@pytest.fixture(autouse=True)
def no_size_is_too_small(monkeypatch):
    monkeypatch.setattr(module, "LEAST", 1)


def test_memory_is_given_again_once_no_view_of_it_is_left():
    with Room().used():
        first = empty_tensor((300, 7), torch.float32)
        place, row = first.data_ptr(), first[3:].t()
        del first
        assert empty_tensor((300, 7), torch.float32).data_ptr() != place
        del row
        assert empty_tensor((300, 7), torch.float32).data_ptr() == place


@pytest.mark.parametrize("holder", ["numpy", "memoryview", "graph"])
def test_whoever_refers_to_memory_keeps_it(holder):
    room = Room()
    with room.used():
        tensor = empty_tensor((1000,), torch.float32).fill_(3)
        if holder == "numpy":
            held = tensor.numpy()
        elif holder == "memoryview":
            held = memoryview(tensor.numpy())
        else:  # what a way back needs
            leaf = torch.ones(1000, requires_grad=True)
            held = (leaf * tensor).sum()
        del tensor
        for _ in range(3):
            empty_tensor((1000,), torch.float32).fill_(9)
    if holder == "graph":
        held.backward()
        assert (leaf.grad == 3).all()
    else:
        assert (np.frombuffer(held, np.float32) == 3).all()


@given(st.lists(st.tuples(st.integers(0, 5000), st.booleans()), max_size=40))
def test_what_is_held_never_overlaps(asked):
    room, held = Room(20_000), {}
    for number, (size, keep) in enumerate(asked):
        memory = room.bytes(size)
        assert len(memory) == size
        assert not size or memory.ctypes.data % LINE == 0
        memory[:] = number % 251
        if keep:
            held[number] = memory
        assert all((kept == at % 251).all() for at, kept in held.items())
        del memory
        assert sum(map(len, room._held)) <= 20_000 + 5_000


def test_no_more_is_kept_than_was_in_use_at_once():
    room = Room()
    both = room.bytes(5000), room.bytes(3000)
    del both
    most = 8000
    for size in (100, 900, 2000, 4000, 9000, 100):
        room.bytes(size)
        most = max(most, size)
        assert sum(map(len, room._held)) <= most * (1 + 1 / SPARE)


def test_blocks_of_one_shape_lie_where_the_first_one_lay():
    room = Room()
    sizes = (4096, 512, 512, 16384, 64)

    def block():
        held = []
        for size in sizes:
            held.append(room.bytes(size))
            room.bytes(700)[:] = 0  # what a piece is read into on the way
        return held

    first = block()
    places = {memory.ctypes.data for memory in first}
    del first
    for _ in range(3):
        assert {memory.ctypes.data for memory in block()} == places


def test_a_tensor_begins_where_torch_would_let_it_begin():
    for dtype in (torch.bfloat16, torch.float64, torch.bool):
        found = empty_tensor((3, 5), dtype)
        assert (found.dtype, found.shape) == (dtype, (3, 5))
        assert found.data_ptr() % LINE == 0
    assert empty_tensor((0, 5), torch.float32).shape == (0, 5)
    assert empty_tensor((), torch.float32).shape == ()


def test_every_thread_has_memory_of_its_own():
    with Room().used():
        kept = empty_bytes(100)
        found = []
        thread = threading.Thread(target=lambda: found.append(empty_bytes(100)))
        thread.start()
        thread.join()
        found[0][:] = 1
        kept[:] = 2
        assert (found[0] == 1).all()
