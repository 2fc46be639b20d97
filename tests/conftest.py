"""Fixtures shared by all tests: the optional shared data, the shipped model, small random models."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SURGEON_SHARED", ROOT.parent / "shared" / "data"))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
_CACHE = tempfile.TemporaryDirectory(prefix="surgeon-tests-")  # removed with this module
os.environ.setdefault("SURGEON_CACHE", _CACHE.name)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of models, texts and reference outputs beside the checkout; skips where it is absent."""
    if not (SHARED / "README.md").is_file():
        pytest.skip(f"no shared test data at {SHARED} (set SURGEON_SHARED to point elsewhere)")
    return SHARED


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """Folder of the small trained model that the repository ships."""
    return ROOT / "examples" / "models" / "tiny-1m"


@pytest.fixture(scope="session")
def tiny_texts() -> Path:
    """Folder of the calibration and held-out text that the repository ships."""
    return ROOT / "examples" / "texts"


def llama_config(**changes):
    """A small Llama config with pairwise different sizes; keyword arguments replace fields."""
    from transformers import LlamaConfig

    fields = {
        "vocab_size": 53,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "attn_implementation": "eager",
    }
    return LlamaConfig(**{**fields, **changes})


@pytest.fixture
def small_llama() -> Callable:
    """Build a small random Llama: ``small_llama(seed=0, hidden_size=64, ...)``, float32, eval mode."""

    def build(seed: int = 0, **changes):
        import torch
        from transformers import LlamaForCausalLM

        torch.manual_seed(seed)
        return LlamaForCausalLM(llama_config(**changes)).eval()

    return build


@pytest.fixture
def saved_llama(small_llama: Callable, tmp_path: Path) -> Callable:
    """Write a small random Llama and its config as a checkpoint folder and return the path."""

    def save(name: str = "model", seed: int = 0, **changes) -> Path:
        folder = tmp_path / name
        small_llama(seed, **changes).save_pretrained(folder)
        return folder

    return save
