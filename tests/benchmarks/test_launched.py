"""What a command took, measured from outside, against what the command did."""

from __future__ import annotations

import sys

import pytest

from benchmarks.launched import took

MIB = 1 << 20


@pytest.mark.parametrize(("mib", "least", "most"), [(0, 0, 60), (200, 200, 260)])
def test_the_peak_is_the_command_s_own(mib, least, most):
    held = bytearray(300 * MIB)  # what starts the command is larger than the command
    held[:: 1 << 12] = b"\1" * len(held[:: 1 << 12])
    command = (sys.executable, "-I", "-S", "-c", f"x = bytearray({mib * MIB}); x[::4096] = x[::4096]")
    assert least * MIB <= took(command).peak_bytes <= most * MIB


def test_processor_time_is_the_command_s():
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    found = took((sys.executable, "-I", "-S", "-c", busy))
    assert found.cpu_seconds >= 0.2


def test_a_command_that_fails_is_not_measured():
    with pytest.raises(SystemExit, match="failed with 3"):
        took((sys.executable, "-c", "raise SystemExit(3)"))
