"""What one command takes: seconds by the clock, seconds of the processor, and its peak memory.

The system remembers a process's peak from before it became another program, so a command that a large
process starts seems to have needed as much memory as that one. Here a small one starts it: this file, run
by itself in a Python without site packages. Not here: which commands (`apply`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Took", "took"]


@dataclass(frozen=True)
class Took:
    """Seconds by the clock and of the processor (all threads and children), and the peak in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def took(command: Sequence[str]) -> Took:
    """Run `command`, what it says on stdout thrown away.

    Raises:
        SystemExit: it failed.
    """
    launcher = [sys.executable, "-I", "-S", __file__, *command]
    done = subprocess.run(launcher, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed with {done.returncode}: {' '.join(command)}")
    return Took(**json.loads(done.stdout))


def _launch(command: Sequence[str]) -> int:
    null = os.open(os.devnull, os.O_WRONLY)
    began = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)])
    _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - began
    cpu = usage.ru_utime + usage.ru_stime
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": usage.ru_maxrss * 1024}))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[1:]))
