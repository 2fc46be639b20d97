from __future__ import annotations

import os
import signal

import pytest
import torch

from benchmarks.forked import forked
from benchmarks.zoo import TASKS, Unbuildable, families, specimen
from benchmarks.zoo.derive import Variant, tiny_fields
from benchmarks.zoo.layers import chosen_layers, resampled
from benchmarks.zoo.running import plainly_run, proof_inputs
from benchmarks.zoo.sizes import SIZES, size_of


def family(key):
    return next(found for found in families() if found.key == key)


def test_every_task_has_families_and_every_key_is_unique():
    found = families()
    assert {one.task for one in found} == set(TASKS)
    assert len({one.key for one in found}) == len(found) > 300


# One of each: experts, state space, encoder, encoder-decoder, text and image.
@pytest.mark.parametrize(
    "key",
    [
        "causal/qwen3_moe",
        "causal/mamba2",
        "masked/bert",
        "seq2seq/t5",
        "image_text/llava",
    ],
)
def test_a_specimen_is_tiny_and_runs(key):
    found = specimen(family(key))
    assert type(found.model).__name__ == found.family.class_name
    assert found.size < 12_000_000
    assert torch.isfinite(plainly_run(found.model)).all()


def test_sizes_of_a_specimen_differ_from_each_other():
    config = specimen(family("causal/qwen3")).model.config
    sizes = [
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.num_hidden_layers,
        config.vocab_size,
    ]
    assert len(set(sizes)) == len(sizes)


def test_what_no_variant_builds_says_what_each_met(monkeypatch):
    found = family("causal/llama")

    def refuse(*_, **__):
        raise ValueError("no such thing")

    monkeypatch.setattr(found.model_class, "_from_config", refuse)
    with pytest.raises(Unbuildable, match="plain: ValueError: no such thing"):
        specimen(found)


def test_a_config_class_that_refuses_its_own_defaults_is_told(monkeypatch):
    found = family("causal/llama")

    def refuse(*_, **__):
        raise ValueError("no such width")

    monkeypatch.setattr(found.config_class, "__init__", refuse)
    with pytest.raises(Unbuildable, match="default config: ValueError: no such width"):
        specimen(found)


def test_a_window_of_pixels_holds_patches_still():
    default = family("image_text/qwen2_5_vl").config_class()
    config = type(default)(**tiny_fields(default, Variant())).vision_config
    assert config.hidden_size == SIZES.hidden
    assert config.window_size // config.patch_size // config.spatial_merge_size > 0


def test_what_reads_merged_patches_is_as_wide_as_they_are():
    default = family("image_text/muse_glimmer").config_class()
    before = default.vision_config.hidden_size * default.vision_config.merge_size**2
    assert default.out_hidden_size == before
    config = type(default)(**tiny_fields(default, Variant()))
    assert config.vision_config.hidden_size == SIZES.hidden
    assert config.out_hidden_size == SIZES.hidden * config.vision_config.merge_size**2


def test_field_names_tell_what_they_count():
    assert size_of("num_key_value_heads") == ("kv_heads", 2)
    assert size_of("num_attention_heads")[0] == "heads"
    assert size_of("moe_intermediate_size")[0] == "expert_ffn"
    assert size_of("eos_token_id")[0] == ""
    assert size_of("seed") is None
    assert SIZES.hidden % SIZES.heads == 0


def test_every_sort_of_layer_is_kept():
    fields = {"layer_types": ["a", "a", "a", "b", "a", "b"], "dense": [0, 1]}
    kept = chosen_layers(fields, 6, 3)
    assert kept == (0, 2, 3)
    assert resampled(fields, 6, kept) == {"layer_types": ["a", "a", "b"], "dense": [0]}


def test_decoder_ids_are_added_for_as_long_as_asked():
    model = specimen(family("seq2seq/t5")).model
    ids = torch.ones(2, 5, dtype=torch.int64)
    with torch.no_grad(), proof_inputs(model):
        assert model(input_ids=ids).logits.shape[:2] == (2, 5)
    with pytest.raises(ValueError, match="exactly one of"):
        model(input_ids=ids)


# Python warns of forking with threads; the harness forks before it computes anything.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestForked:
    def test_reports_come_back(self):
        assert forked(lambda report: report({"a": 1}), 20) == ([{"a": 1}], None)

    def test_a_hanging_child_is_stopped_and_what_it_said_is_kept(self):
        def hang(report):
            report({"a": 1})
            signal.pause()

        assert forked(hang, 1) == ([{"a": 1}], "stopped after 1 s")

    def test_a_killed_child_is_told_apart(self):
        assert forked(lambda report: os.kill(os.getpid(), signal.SIGKILL), 20) == ([], "killed by SIGKILL")

    def test_a_crash_is_told_in_full(self):
        said, ended = forked(lambda report: 1 / 0, 20)
        assert "ZeroDivisionError" in said[0]["crash"]
        assert ended == "the child process failed"
