"""What measuring costs: statistics beside the bare forward passes over the same tokens, and planning again.

    python benchmarks/calibrate.py                      both shapes below, then planning again at 1.2 B
    python benchmarks/calibrate.py --no-again           without the large checkpoint
    python benchmarks/calibrate.py --shape dense --turns 5

Ratios of processor time of this process, median over turns; the runs take turns, so that a busy machine
slows all alike. The checkpoint for planning again is made of random numbers in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

SHAPES: dict[str, dict[str, Any]] = {
    "dense": {
        "model_type": "llama",
        "vocab_size": 8192,
        "hidden_size": 768,
        "intermediate_size": 2304,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
    },
    "experts": {
        "model_type": "qwen3_moe",
        "vocab_size": 8192,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "moe_intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "num_experts": 16,
        "num_experts_per_tok": 4,
    },
}
LARGE = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
"""The shape of Llama-3.2-1B: 1.24 B parameters."""
TARGETS = {"mean, variance": 1.3, "gram": 2.0, "routing": 1.5}


def main(arguments: list[str] | None = None) -> None:
    """Measure what the arguments ask for and print the tables."""
    asked = _arguments(arguments)
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(asked.threads)
    for name in [name for name in asked.shape or SHAPES if name in SHAPES]:
        for what, ratio in costs(SHAPES[name], asked).items():
            print(f"{name:8} {what:16} {ratio:5.2f} x bare forward   (at most {TARGETS[what]})")
    if asked.again:
        print(json.dumps(planning_again(LARGE), indent=2))


def costs(fields: dict[str, Any], asked: argparse.Namespace) -> dict[str, float]:
    """Processor time of each run over that of the bare forward passes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from surgeon.calibrate import Samples, gather, model_inputs
    from surgeon.calibrate.bench import TOKENS
    from surgeon.trace import trace_module

    torch.manual_seed(0)
    config = AutoConfig.for_model(**fields)
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    graph = trace_module(module)
    ids = torch.randint(0, fields["vocab_size"], (asked.samples, asked.seq_len))
    samples = Samples(ids, torch.ones_like(ids, dtype=torch.bool))
    size = max(1, TOKENS // asked.seq_len)

    def bare() -> None:
        with torch.no_grad():
            for batch in samples.unpadded(size):
                module(**model_inputs(module, batch))

    runs: dict[str, Callable[[], object]] = {"bare": bare}
    for what, keys in _asked_for(graph).items():
        runs[what] = lambda keys=keys: gather(module, samples, keys, batch_size=size)
    taken: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(asked.turns + 1):
        for what, run in runs.items():
            start = time.process_time()
            run()
            taken[what].append(time.process_time() - start)
    median = {what: statistics.median(times[1:]) for what, times in taken.items()}  # the first turn warms up
    return {what: spent / median["bare"] for what, spent in median.items() if what != "bare"}


def _asked_for(graph: Any) -> dict[str, list[Any]]:
    """Statistics of what enters the projections that lose inputs, and of routing where there is any."""
    from surgeon.calibrate.expert_load import ExpertLoad
    from surgeon.calibrate.gram import Gram
    from surgeon.calibrate.input_moment import InputMoment

    experts = [group for group in graph.groups if group.kind == "expert"]
    if experts:
        loads = (ExpertLoad(load) for load in ("count", "gate", "norm", "gated_norm"))
        return {"routing": [key.on(graph, experts) for key in loads]}
    inner = [group for group in graph.groups if group.kind in ("ffn", "kv_group") and group.block]
    moments = (InputMoment("mean"), InputMoment("variance"))
    return {
        "mean, variance": [key.on(graph, inner) for key in moments],
        "gram": [Gram().on(graph, inner)],
    }


def planning_again(fields: dict[str, Any]) -> dict[str, float]:
    """Seconds of a plan whose statistics are measured, then of one with another ratio."""
    import torch

    import surgeon

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        parameters = _saved(fields, model)
        recipe = {
            "surgeon": 1,
            "steps": [
                {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.75}, "criterion": "flap"}
            ],
        }
        ids = torch.randint(0, fields["vocab_size"], (2, 16)).tolist()
        found: dict[str, float] = {"parameters": parameters}
        for when, fraction in (("first", 0.75), ("again", 0.5)):
            wall, busy = time.perf_counter(), time.process_time()
            surgeon.plan(
                model,
                recipe,
                texts=[ids],
                cache=Path(folder) / "cache",
                overrides=[f"steps.0.keep.fraction={fraction}"],
                stream=True,
            )
            found[f"{when}_s"] = round(time.perf_counter() - wall, 2)
            found[f"{when}_processor_s"] = round(time.process_time() - busy, 2)
        return found


def _saved(fields: dict[str, Any], folder: Path) -> int:
    """Write a checkpoint of that shape, its weights a repeated block of noise; how many they are."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**fields)
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    built = built.to_empty(device="cpu")
    built.tie_weights()
    noise = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        for parameter in built.parameters():
            flat = parameter.view(-1)
            for start in range(0, len(flat), len(noise)):
                part = flat[start : start + len(noise)]
                part.copy_(noise[: len(part)])
    built.save_pretrained(folder)
    return sum(parameter.numel() for parameter in built.parameters())


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What measuring costs.")
    parser.add_argument(
        "--shape", action="append", choices=[*SHAPES, "none"], help="one of the shapes; repeat"
    )
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
