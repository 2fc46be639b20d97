"""``--memory`` is a budget: what cannot fit is refused before it is begun, what is begun stays within it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import surgeon
from surgeon.api.budget import PIECES, streamed_block
from surgeon.api.load_recipe import load_recipe
from surgeon.api.plan import plan_report
from surgeon.api.replay import replay
from surgeon.errors import InputError
from surgeon.io.memory import resident
from surgeon.rebuild.unread import PIECE
from tests.handmade import llama_graph

IDS = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
STEP = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.6}, "criterion": "wanda"}
PEAK = """
import sys, torch
from surgeon.api.replay import replay
from surgeon.io.memory import resident
torch.set_num_threads(1)
plan, tiny, model, out, memory = sys.argv[1:]
replay(plan, model=tiny, out=out + "-tiny", memory=memory)
print("floor:", resident() // 1024, "kB")
replay(plan, model=model, out=out, memory=memory)
print(open("/proc/self/status").read())
"""
WIDE = dict(hidden_size=2048, intermediate_size=2048, num_attention_heads=32, num_key_value_heads=2)


def refused(call) -> InputError:
    with pytest.raises(InputError) as caught:
        call()
    return caught.value


def test_what_cannot_fit_is_refused_with_numbers(saved_llama, tmp_path):
    model, recipe = saved_llama(), {"surgeon": 1, "steps": [STEP]}
    streamed = refused(lambda: surgeon.plan(model, recipe, texts=[IDS], stream=True, memory="100MB"))
    said = r"measuring block by block takes about (\d\.\d\d) GB of memory, and 0.10 GB are allowed"
    needed = float(re.match(said, streamed.message)[1])
    assert needed > 0.1
    enough = re.match(r"--memory (\d\.\d)GB, or a shorter calibration.seq_len", streamed.hint)[1]
    assert surgeon.plan(model, recipe, texts=[IDS], stream=True, memory=f"{float(enough) + 0.3}GB").edits
    whole = refused(lambda: surgeon.plan(model, recipe, texts=[IDS], memory="100MB"))
    assert "loading the model to measure it takes about" in whole.message
    assert whole.hint.endswith("or --stream")
    plan_report(
        {"surgeon": 1, "steps": [{"op": "drop_blocks", "drop": [1]}]}, model=model, out=tmp_path / "p.json"
    )
    proof = refused(lambda: replay(tmp_path / "p.json", model=model, out=tmp_path / "out", memory="100MB"))
    assert proof.message.startswith("reading each weight as it is used takes about")
    assert not (tmp_path / "out").exists()


def test_what_steps_need_beside_a_block(small_llama):
    model = small_llama(hidden_size=1536, intermediate_size=2000)
    sizes = [parameter.numel() for parameter in model.model.layers[0].parameters()]
    block, largest, kept = sum(sizes), max(sizes), 1200

    def needed(**fields) -> int:
        recipe = load_recipe({"surgeon": 1, "steps": [{**STEP, **fields}]})
        return (
            streamed_block(llama_graph(model.config), recipe.steps, torch.bfloat16)
            - resident()
            - PIECES * PIECE
        )

    held = 4 * (block + largest)
    assert needed() == pytest.approx(held, abs=3e6)
    assert needed(criterion="taylor") == pytest.approx(4 * 4 * block, abs=3e6)
    solved = 2 * kept * 1536 + 6 * 1024 * kept
    assert needed(repair="refit") == pytest.approx(max(held, 8 * (kept**2 + solved)), abs=3e6)
    layer = {"repair": "refit", "target": "layer"}
    squares = 2000**2 + kept * (2000 + kept)
    assert needed(repair=layer) == pytest.approx(8 * (squares + solved), abs=3e6)


def test_apply_takes_what_a_budget_reckons_with_whatever_the_model_takes(small_llama, tmp_path, repo):
    """With its proof: memory as the system saw it, above that of the same job on a tiny model.

    Twice the largest tensor and a few pieces, which the allocator may keep after they are let go of.
    """
    depth = {"num_hidden_layers": 5, "tie_word_embeddings": False}
    tiny = small_llama(**depth)
    tiny.save_pretrained(tmp_path / "tiny")
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**WIDE, **depth, vocab_size=12000))
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.05, 0.05)
    model.save_pretrained(tmp_path / "model", max_shard_size="100MB")
    largest = 4 * max(parameter.numel() for parameter in model.parameters())
    assert 4 * sum(parameter.numel() for parameter in model.parameters()) > 6 * largest
    del model
    plan = tmp_path / "plan.json"
    plan_report(
        {"surgeon": 1, "steps": [{"op": "drop_blocks", "drop": [3]}]}, model=tmp_path / "model", out=plan
    )
    folders = [tmp_path / name for name in ("tiny", "model", "small")]
    command = [sys.executable, "-c", PEAK, plan, *folders, "1GB"]
    done = subprocess.run(list(map(str, command)), cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    floor, peak = (1024 * int(re.search(rf"{name}:\s+(\d+)", done.stdout)[1]) for name in ("floor", "VmHWM"))
    assert peak - floor <= 2 * largest + PIECES * PIECE, (floor, peak, largest)
    assert peak <= 1e9
