"""Shipped recipes on small checkpoints, run as a user runs them: by the command line, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import transformers as hf
from typer.testing import CliRunner, Result

from surgeon.cli.app import app
from surgeon.plan import Report
from tests.conftest import ROOT

RECIPES = ROOT / "recipes"
FEWER = ("calibration.samples=6", "calibration.seq_len=24")
DEPTH = (
    "shortgpt",
    "deeper_layers",
    "sleb",
    "tail",
    "laco",
    "mka",
    "streamline",
    "attention_drop",
    "depth_then_width",
)
WIDTH = ("demo", "flap", "llm_pruner", "magnitude", "refit", "refit_per_layer", "taylor_refit", "wanda_sp")
DEEP = ("llm_pruner_original",)
"""On widths, with blocks that only a deeper model has."""
EXPERTS = tuple(sorted(path.stem for kind in ("experts_*", "moe_*") for path in RECIPES.glob(f"{kind}.yaml")))
Configs = Mapping[str, Callable[[], hf.PreTrainedConfig]]


def checkpoints(configs: Configs, below: Path, tokenizer: Path) -> Callable[[str], Path]:
    """Folders of random models with a tokenizer by the names of `configs`, made when first asked for."""

    def folder(name: str) -> Path:
        made = below / name
        if not made.exists():
            torch.manual_seed(0)
            config = configs[name]()
            cls = hf.AutoModelForMaskedLM if config.architectures else hf.AutoModelForCausalLM
            cls.from_config(config).save_pretrained(made)
            for file in tokenizer.glob("tokenizer*"):
                shutil.copy(file, made)
        return made

    return folder


def called(verb: str, recipe: str, model: Path, *options: object) -> Result:
    """``surgeon VERB recipes/RECIPE.yaml --model MODEL --json OPTIONS`` on little text."""
    file = RECIPES / f"{recipe}.yaml"
    words = [verb, str(file), "--model", str(model), "--json", "--no-cache", *(str(word) for word in options)]
    if "calibration:" in file.read_text(encoding="utf-8"):
        words += [word for change in FEWER for word in ("--set", change)]
    return CliRunner().invoke(app, words)


def run(recipe: str, model: Path, out: Path, *overrides: str) -> Report:
    """The report of a recipe that was run."""
    changes = [word for change in overrides for word in ("--set", change)]
    done = called("run", recipe, model, "--out", out, *changes)
    assert done.exit_code == 0, (done.stderr, done.exception)
    return Report.from_dict(json.loads(done.stdout))
