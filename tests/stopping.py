"""A run by blocks that saves behind every block, and is interrupted behind one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from surgeon.calibrate.pace import Pace
from surgeon.calibrate.unfinished import Unfinished


@contextmanager
def interrupted_behind(stop: int) -> Iterator[None]:
    """What runs inside ends by an interrupt, when it has put aside `stop` times."""
    put_aside, seen = Unfinished.put_aside, []

    def stopping(self, pieces):
        put_aside(self, pieces)
        seen.append(1)
        if len(seen) == stop:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pace, "due", lambda self: True)
        patched.setattr(Unfinished, "put_aside", stopping)
        with pytest.raises(KeyboardInterrupt):
            yield
