"""Every snippet of README and docs runs: python and console blocks as they stand, yaml as recipes.

A block whose info string ends in ``no-run`` is shown only: it needs a model hub, or is a fragment.
The first line of a block may name the file that it is: ``# file: name``; it is written there.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SURGEON = [sys.executable, "-c", "from surgeon.cli import main; main()"]


class Snippet(NamedTuple):
    language: str
    text: str
    line: int


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(found.group(1), found.group(3), text[: found.start()].count("\n") + 1)
        for found in FENCE.finditer(text)
        if not found.group(2).strip().endswith("no-run")
    ]


def workplace(folder: Path) -> Path:
    """A folder in which the paths of the documentation exist."""
    for name in ("examples", "recipes", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(command: list[str], folder: Path, where: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_console(snippet: Snippet, folder: Path, where: str) -> None:
    for line in snippet.text.replace("\\\n", " ").splitlines():
        if not line.startswith("$ "):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[0] == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert words[1] in targets, f"{where}: the Makefile has no target {words[1]}"
        elif words[0] == "surgeon":
            run([*SURGEON, *words[1:]], folder, where)
        else:
            run(words, folder, where)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page, tmp_path):
    folder = workplace(tmp_path)
    program: list[str] = []
    for number, snippet in enumerate(snippets(page)):
        where = f"{page.name}:{snippet.line}"
        named = re.match(r"# file: (\S+)\n", snippet.text)
        if named:
            file = folder / named.group(1)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(snippet.text, encoding="utf-8")
        if snippet.language == "console":
            run_console(snippet, folder, where)
        elif snippet.language == "python" and not named:
            program.append(snippet.text)
        elif snippet.language == "yaml" and "surgeon:" in snippet.text:
            recipe = folder / (named.group(1) if named else f"snippet-{number}.yaml")
            recipe.write_text(snippet.text, encoding="utf-8")
            run([*SURGEON, "check", str(recipe), "--model", "examples/models/tiny-1m"], folder, where)
    if program:
        (folder / "page.py").write_text("\n".join(program), encoding="utf-8")
        run([sys.executable, "page.py"], folder, f"the python blocks of {page.name}")


def test_there_are_snippets_of_each_sort():
    languages = {snippet.language for page in PAGES for snippet in snippets(page)}
    assert {"python", "console", "yaml"} <= languages
