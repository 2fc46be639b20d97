"""A registry imports the file that it is asked for by name, and all of them where that is not enough."""

from __future__ import annotations

import subprocess
import sys

import pytest

BY_NAME = """
import sys
from surgeon.passes import passes
assert passes.find("lock").__name__ == "Lock"
assert not {"surgeon.passes.unlock", "surgeon.passes.regroup"} & set(sys.modules)
for name in ("pipeline", "no such", "a.b", ""):
    assert passes.find(name) is None
assert passes.names() == ("lock", "regroup", "unlock")
"""
TWICE = """
from surgeon.errors import SurgeonError
from surgeon.passes import passes
from surgeon.registry import plugged
assert not plugged()
class Other:
    pass
passes.register("lock")(Other)
assert plugged()
try:
    passes.find("lock")
except SurgeonError as error:
    assert "'lock' is registered twice: in __main__ and in surgeon.passes.lock" in str(error), error
else:
    raise AssertionError("not refused")
"""
LATER = """
from surgeon.passes import passes
from surgeon.registry import plugged
class Mine:
    pass
passes.register("mine")(Mine)
assert plugged() and passes.find("mine") is Mine and passes.find("lock") is not None
"""


@pytest.mark.parametrize("code", [BY_NAME, TWICE, LATER], ids=["by_name", "twice", "later"])
def test_in_a_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
