"""Plugins of an installed distribution: found by their entry point, without ``--plugin``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = {"keep_outer_attention": "passes", "peak": "criteria"}


def test_an_installed_pass_and_criterion_are_listed_and_run(tmp_path):
    installed = tmp_path / "site" / "outer_attention-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: outer-attention\nVersion: 1.0\n")
    points = "".join(f"{name} = {name}\n" for name in PLUGINS)
    (installed / "entry_points.txt").write_text(f"[surgeon.plugins]\n{points}")
    for name in PLUGINS:
        shutil.copy(ROOT / "examples" / "plugins" / f"{name}.py", installed.parent)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "surgeon: 1\n"
        "steps:\n"
        "  - op: keep_outer_attention\n"
        "  - {op: remove, select: {kind: ffn}, keep: {fraction: 0.5}, criterion: peak}\n"
    )
    model = ROOT / "examples" / "models" / "tiny-1m"

    def surgeon(*arguments: str) -> str:
        paths = [str(installed.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return subprocess.run(
            [sys.executable, "-c", "from surgeon.cli import main; main()", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    for name, registry in PLUGINS.items():
        assert name in surgeon("list", registry)
    told = json.loads(surgeon("plan", str(recipe), "--model", str(model), "--json"))
    assert "peak" in json.dumps(told)
