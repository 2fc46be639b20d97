"""What a trace costs at full size: seconds, memory, and growth with depth. No weight is made.

    python benchmarks/trace.py                                    the shapes below, then torch_pruning
    python benchmarks/trace.py --shape llama-70b --no-torch-pruning
    python benchmarks/trace.py --config path/to/config.json

Every measurement runs in a fresh process, so that peak memory is its own. The processor time per layer
is given at half the depth and at the full one: equal numbers mean linear growth. Last, torch_pruning
builds its dependency graph of ever larger models until it fails or needs too long (it needs weights),
and the largest that it managed is traced in the same run for a ratio.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

SHAPES: dict[str, dict[str, Any]] = {
    "llama-70b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "mixtral-8x22b": {
        "model_type": "mixtral",
        "vocab_size": 32768,
        "hidden_size": 6144,
        "intermediate_size": 16384,
        "num_hidden_layers": 56,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
    },
    "deepseek-v3": {"model_type": "deepseek_v3", "num_hidden_layers": 61},
    "qwen3-235b-a22b": {
        "model_type": "qwen3_moe",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
    "mamba2-2.7b": {
        "model_type": "mamba2",
        "vocab_size": 50288,
        "hidden_size": 2560,
        "num_hidden_layers": 64,
        "num_heads": 80,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 1,
    },
}
LADDER: tuple[dict[str, Any], ...] = tuple(
    {
        "model_type": "llama",
        "vocab_size": 4096,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,  # its search for groups does not return with fewer
    }
    for hidden, layers in (
        (256, 4),
        (512, 8),
        (512, 16),
        (768, 16),
        (1024, 16),
        (1024, 24),
        (1536, 24),
        (2048, 24),
    )
)
"""What torch_pruning is asked to do, smallest first."""
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Measure what the arguments ask for and print the tables."""
    asked = _arguments(arguments)
    if asked.child:
        print(json.dumps(CHILDREN[asked.child](json.loads(asked.fields))))
        return
    shapes = {name: SHAPES[name] for name in asked.shape or ([] if asked.config else SHAPES)}
    shapes |= {
        path.resolve().parent.name: json.loads(path.read_text(encoding="utf-8")) for path in asked.config
    }
    rows = {name: measured(fields, asked.limit) for name, fields in shapes.items()}
    print(table(rows))
    if asked.torch_pruning:
        print(comparison(asked.limit))


def measured(fields: Row, limit: float) -> Row:
    """One shape at its depth and at half of it, each in a fresh process."""
    whole = fresh("trace", fields, limit)
    if "error" in whole:
        return whole
    half = fresh("trace", shallower(fields, whole["layers"] // 2), limit)
    return {**whole, "half": half}


def shallower(fields: Row, layers: int) -> Row:
    """The same shape with fewer layers; lists that name every layer are cut short."""
    depth = fields.get("num_hidden_layers")
    short = {
        name: value[:layers] if isinstance(value, list) and len(value) == depth else value
        for name, value in fields.items()
    }
    return {**short, "num_hidden_layers": layers}


def fresh(child: str, fields: Row, limit: float) -> Row:
    """What the child process says; an ``error`` in words where it fails or takes too long."""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--child",
        child,
        "--fields",
        json.dumps(fields),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {limit:.0f} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()
        return {"error": last[-1] if last else f"ended with status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------- in the child process


def trace_bare(fields: Row) -> Row:
    """Build on the meta device and trace."""
    from surgeon.rebuild.skeleton import skeleton
    from surgeon.trace import trace_module

    config = _config(fields)
    start = time.perf_counter()
    module = skeleton(config)
    built, busy = time.perf_counter(), time.process_time()
    graph = trace_module(module)
    return {
        "layers": config.num_hidden_layers,
        "parameters": graph.parameter_count,
        "groups": len(graph.groups),
        "locked": sum(group.locked is not None for group in graph.groups),
        "blocks": len(graph.blocks),
        "build_s": built - start,
        "trace_s": time.perf_counter() - built,
        "cpu_s": time.process_time() - busy,
        "gib": _peak_gib(),
    }


def build_dependency(fields: Row) -> Row:
    """torch_pruning's graph of the same module with weights, and all its groups."""
    import torch
    import torch_pruning as tp
    from torch import nn

    from surgeon.rebuild.skeleton import architecture

    config = _config(fields)
    module = architecture(config)(config).eval()
    module.config.use_cache = False
    start = time.perf_counter()
    graph = tp.DependencyGraph().build_dependency(
        module, example_inputs=torch.zeros(1, 11, dtype=torch.int64)
    )
    built = time.perf_counter()
    groups = list(graph.get_all_groups(root_module_types=[nn.Linear]))
    return {
        "layers": config.num_hidden_layers,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "groups": len(groups),
        "build_s": built - start,
        "groups_s": time.perf_counter() - built,
        "gib": _peak_gib(),
    }


CHILDREN: dict[str, Callable[[Row], Row]] = {"trace": trace_bare, "torch_pruning": build_dependency}


def _config(fields: Row) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**fields)


def _peak_gib() -> float:
    """Peak resident memory of this process; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# ---------------------------------------------------------------------- tables


def table(rows: dict[str, Row]) -> str:
    """One line a shape."""
    return "\n".join([HEAD, *(_line(name, row) for name, row in rows.items())])


HEAD = (
    f"{'shape':20} {'params':>9} {'layers':>6} {'groups':>6} {'locked':>6} {'build s':>7} {'trace s':>7}"
    f" {'of CPU':>6} {'ms/layer at half':>16} {'at full':>7} {'peak GiB':>8}"
)


def _line(name: str, row: Row) -> str:
    if "error" in row:
        return f"{name:20} failed: {row['error']}"
    half = row["half"]
    shallow = half["error"] if "error" in half else f"{1000 * half['cpu_s'] / half['layers']:.0f}"
    full = 1000 * row["cpu_s"] / row["layers"]
    return (
        f"{name:20} {row['parameters'] / 1e9:8.3f}B {row['layers']:6} {row['groups']:6} {row['locked']:6}"
        f" {row['build_s']:7.2f} {row['trace_s']:7.2f} {row['cpu_s']:6.2f} {shallow:>16} {full:7.0f}"
        f" {row['gib']:8.2f}"
    )


def comparison(limit: float) -> str:
    """torch_pruning on the largest rung of the ladder that it manages, beside a trace of the same."""
    best: tuple[Row, Row] | None = None
    stopped = "it managed all of them"
    for fields in LADDER:
        theirs = fresh("torch_pruning", fields, limit)
        if "error" in theirs:
            stopped = (
                f"hidden {fields['hidden_size']}, {fields['num_hidden_layers']} layers: {theirs['error']}"
            )
            break
        best = (fields, theirs)
    if best is None:
        return f"torch_pruning managed none: {stopped}"
    fields, theirs = best
    ours = fresh("trace", fields, limit)
    whole = theirs["build_s"] + theirs["groups_s"]
    return (
        f"\ntorch_pruning, hidden {fields['hidden_size']}, {theirs['layers']} layers, "
        f"{theirs['parameters'] / 1e6:.0f}M parameters: build {theirs['build_s']:.2f} s, "
        f"{theirs['groups']} groups {theirs['groups_s']:.2f} s, peak {theirs['gib']:.2f} GiB\n"
        f"surgeon, the same: trace {ours['trace_s']:.2f} s with {ours['groups']} groups, "
        f"peak {ours['gib']:.2f} GiB: {whole / ours['trace_s']:.1f} times faster (their build alone: "
        f"{theirs['build_s'] / ours['trace_s']:.1f})\nnext: {stopped}"
    )


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a trace costs at full size.")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="one of the built-in shapes; repeat")
    parser.add_argument("--config", action="append", type=Path, default=[], help="a config.json; repeat")
    parser.add_argument("--limit", type=float, default=300, help="seconds for each process")
    parser.add_argument("--torch-pruning", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--fields", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in place of this folder, which would hide the standard library's `trace`
    main()
