"""A per-layer folder in a process that knows nothing of surgeon, and what code is run inside surgeon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import surgeon
from surgeon.api.reload import check_reload
from surgeon.errors import CheckpointError
from surgeon.io import Checkpoint, has_own_code, write_checkpoint
from surgeon.rebuild.apply import apply_plan
from tests.rebuild.config_cases import TOKENS, probed
from tests.rebuild.uneven import uneven

BARE = """
import json, sys
sys.modules["surgeon"] = None  # importing it fails
import torch
from transformers import AutoModel, AutoModelForCausalLM

def logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        return model, model(ids).logits

def generate(model, ids, **options):
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, min_new_tokens=6,
                          do_sample=False, pad_token_id=0, **options)

found = {}
for folder in sys.argv[2:]:
    ids = torch.tensor(json.loads(sys.argv[1]))
    want = torch.load(f"{folder}/logits.pt")
    model, got = logits(folder, ids)
    plain = generate(model, ids, use_cache=False)
    model.save_pretrained(f"{folder}/again")
    _, again = logits(f"{folder}/again", ids)
    try:
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
        without = "loaded"
    except Exception as error:
        without = type(error).__name__
    found[folder] = {
        "class": type(model).__name__,
        "off": float((got - want).abs().max() / want.abs().max()),
        "again": float((again - got).abs().max()),
        "cached": bool((generate(model, ids, use_cache=True) == plain).all()),
        "static": bool((generate(model, ids, cache_implementation="static") == plain).all()),
        "base": type(AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__,
        "without code": without,
    }
print(json.dumps(found))
"""


def written(family: str, folder: Path) -> torch.nn.Module:
    module, graph, space = probed(family)
    small, _ = apply_plan(module, uneven(graph), graph, space, "per_layer")
    folder.mkdir()
    small = small.float()
    write_checkpoint(folder, small)
    with torch.no_grad():
        torch.save(small(TOKENS).logits, folder / "logits.pt")
    return small


def test_a_bare_process_loads_generates_and_saves_again(tmp_path):
    families = ("llama", "qwen2", "gpt2", "gptneox", "phi3", "opt", "falcon-grouped")
    for family in families:
        written(family, tmp_path / family)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    tokens = json.dumps(TOKENS.tolist())
    folders = [str(tmp_path / family) for family in families]
    done = subprocess.run(
        [sys.executable, "-c", BARE, tokens, *folders],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for folder in folders:
        one = found[folder]
        assert one["off"] < 1e-5, folder
        assert one["again"] == 0, folder
        assert one["cached"], folder
        assert one["static"], folder
        assert one["class"].startswith("PerLayer"), folder
        assert one["base"].startswith("PerLayer"), folder
        assert one["without code"] != "loaded", folder


def test_surgeon_loads_it_without_running_the_code(tmp_path):
    small = written("phi3", tmp_path / "out")
    (tmp_path / "out" / "modeling_per_layer.py").write_text("raise RuntimeError('was run')")
    again = surgeon.load(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(again(TOKENS).logits, small(TOKENS).logits)


def test_only_its_own_code_is_run_on_reload(tmp_path):
    small = written("llama", tmp_path / "out")
    config = Checkpoint.open(tmp_path / "out").config
    assert has_own_code(tmp_path / "out", config)
    assert "with trust_remote_code" in check_reload(tmp_path / "out", small, 1e-5)[0]
    file = tmp_path / "out" / "modeling_per_layer.py"
    file.write_text(file.read_text() + "\nraise RuntimeError('was run')\n")
    with pytest.raises(CheckpointError, match="is not the file that surgeon writes"):
        check_reload(tmp_path / "out", small, 1e-5)
    file.unlink()
    with pytest.raises(CheckpointError, match="is not the file that surgeon writes"):
        has_own_code(tmp_path / "out", config)


def test_an_ordinary_folder_needs_no_code(saved_llama):
    folder = saved_llama()
    assert not has_own_code(folder, Checkpoint.open(folder).config)
