"""What tests of streamed models count."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from surgeon.io.disk_source import DiskTensor


@pytest.fixture
def elements_read(monkeypatch) -> Counter[str]:
    """How many elements of each stored tensor are read from now on, by its name on disk."""
    reads: Counter[str] = Counter()
    read = DiskTensor._read

    def counted(self, dims):
        reads[self.name] += math.prod(len(dims.get(dim, range(size))) for dim, size in enumerate(self.shape))
        return read(self, dims)

    monkeypatch.setattr(DiskTensor, "_read", counted)
    return reads
