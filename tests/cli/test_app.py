"""The command line as a process: help, exit statuses, one clear message for bad input."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = ("run", "plan", "apply", "graph", "check", "eval", "densify", "verify", "list", "schema")


def surgeon(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    code = "from surgeon.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_names_every_command_and_loads_no_torch(repo):
    code = (
        "import sys; from surgeon.cli import main; sys.argv = ['surgeon', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repo, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, repo):
    done = surgeon(command, "--help", cwd=repo)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_an_unknown_command_suggests_the_nearest(repo):
    done = surgeon("shema", cwd=repo)
    assert done.returncode == 2
    assert "schema" in done.stderr


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_is_a_message_and_a_traceback_only_on_demand(debug, repo):
    done = surgeon("list", "--plugin", "absent.py", *(["--debug"] if debug else []), cwd=repo)
    assert "plugin absent.py is not a file" in done.stderr
    assert ("Traceback" in done.stderr) == debug
    assert done.returncode == (1 if debug else 2)
    assert done.stdout == ""
