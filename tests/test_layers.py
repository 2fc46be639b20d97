"""The package keeps its own architecture: who may import whom, how long, and no model family by name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "surgeon"
FILES = sorted(PACKAGE.rglob("*.py"))

# Top to bottom: a module imports only from rows below its own; parts of one row do not know each other.
ROWS = (
    ("cli",),
    ("api",),
    ("io",),
    ("recipe",),
    ("operations",),
    ("criteria", "passes"),
    ("trace", "calibrate"),
    ("rebuild", "repair", "evaluate", "interop"),
    ("plan",),
    ("graph",),
    ("registry",),
    ("errors", "deferred"),
)
RANK = {part: rank for rank, row in enumerate(ROWS) for part in row}
PUBLIC = {
    "SurgeonError",
    "apply",
    "evaluate",
    "load",
    "load_recipe",
    "plan",
    "run",
    "trace",
    "verify",
}


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def part_of(file: Path) -> str:
    inside = file.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def test_every_part_has_its_row():
    parts = {part_of(file) for file in FILES} - {"__init__"}
    assert parts == set(RANK)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_down(file):
    part = part_of(file)
    if part == "__init__":
        return
    for target in imports(parsed(file)):
        words = target.split(".")
        if words[0] != "surgeon":
            continue
        assert len(words) > 1, f"imports the whole package: {target}"
        if words[1] != part:
            assert words[1] in RANK, f"{target} is of no row"
            assert RANK[words[1]] > RANK[part], f"surgeon.{part} must not import {target}"


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if part_of(f) in {"graph", "plan", "registry", "errors", "deferred", "__init__"}],
    ids=name_of,
)
def test_graph_and_plan_know_no_torch(file):
    heavy = {"torch", "transformers", "safetensors", "tokenizers", "torch_pruning"}
    assert not heavy & {target.split(".")[0] for target in imports(parsed(file))}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_stay_short(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_the_command_line_prints(file):
    calls = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
    prints = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert part_of(file) == "cli" or not prints


# Only io opens files (`Checkpoint.open` is io's own), and a recipe reads itself and what it extends.
OPENS = {
    "open",
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
    "safe_open",
    "save_file",
    "load_file",
}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_io_and_recipe_read_files(file):
    if part_of(file) in {"io", "recipe", "cli"}:
        return
    calls = (node.func for node in ast.walk(parsed(file)) if isinstance(node, ast.Call))
    called = {ast.unparse(call).removeprefix("Checkpoint.open") for call in calls}
    assert not {call.rpartition(".")[2] for call in called} & OPENS


# Names that a model family gives to its parameters, modules and sizes.
# Names of programs that load checkpoints, as a recipe and a report say them.
PROGRAMS = frozenset({"llama.cpp"})
PATTERN = re.compile(
    r"\b[qkvo]_proj|(gate|up|down|gate_up|qkv|out|in|dt|x)_proj\b|self_attn|self_attention|"
    r"c_attn|c_proj|c_fc|query_key_value|qkv|h_to_4h|4h_to_h|lm_head|embed_tokens|embed_in|embed_out|"
    r"word_embeddings|input_layernorm|attention_layernorm|\bwte\b|\bwpe\b|\bfc[12]\b|"
    r"hidden_size|intermediate_size|num_attention_heads|num_key_value_heads|num_hidden_layers|n_inner|ffn_dim",
)
# Model types, or stems of one, that are English words as well; aria is the web's vocabulary for all users.
ENGLISH = frozenset("align aria beam bit clip data dots funnel git led mask opt pop radio sew step".split())


def words_in_code(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Identifiers and strings, docstrings and bare strings aside."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, ast.arg):
            yield line, node.arg
        elif isinstance(node, ast.keyword) and node.arg:
            yield line, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield line, node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield line, node.value


@pytest.fixture(scope="module")
def families() -> frozenset[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    names = {name.replace("-", "_").lower() for name in CONFIG_MAPPING_NAMES}
    stems = {found.group(1) for name in names if (found := re.match(r"([a-z]+)\d", name))}  # llama4 -> llama
    return frozenset(name for name in names | stems if len(name) > 2) - ENGLISH


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_model_family_by_name(file, families):
    found = []
    for line, word in words_in_code(parsed(file)):
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower()
        pieces = {snake, *re.split(r"[^a-z0-9_]+", snake), *re.split(r"[^a-z0-9]+", snake)}
        if word not in PROGRAMS and (PATTERN.search(snake) or pieces & families):
            found.append((line, word, sorted(pieces & families)))
    assert not found


def test_the_search_for_families_finds_them(families):
    assert {"llama", "gpt2", "qwen3", "falcon", "bloom", "gemma3", "phi3"} <= families
    assert PATTERN.search("model.layers.0.self_attn.q_proj.weight")


def test_public_names_are_pinned():
    import surgeon

    assert set(surgeon.__all__) == PUBLIC
    assert len(surgeon.__all__) <= 20
    assert all(callable(getattr(surgeon, name)) for name in surgeon.__all__)


@pytest.mark.parametrize(
    "what", ["import surgeon", "import surgeon.graph, surgeon.plan", "import surgeon.cli"]
)
def test_a_quick_import_loads_no_torch(what):
    code = f"{what}; import sys; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_verbs_win_over_the_packages_of_their_name():
    """`surgeon.plan` stays the verb after the package `surgeon.plan` was imported."""
    import surgeon
    from surgeon.plan import Plan

    assert Plan.__module__ == "surgeon.plan.plan"
    assert callable(surgeon.plan)
    assert callable(surgeon.trace)
