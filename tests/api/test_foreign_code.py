"""What a model's own code raises while it is proven or measured is one message that says where."""

from __future__ import annotations

import pytest
from transformers import BambaConfig, BambaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

import surgeon
from surgeon.api.foreign_code import explained
from surgeon.api.publishing import COMPARE, RELOAD
from surgeon.api.verify import verify_folder
from surgeon.errors import InputError, VerifyError

RECIPE = {"surgeon": 1, "steps": [{"op": "drop_blocks", "drop": [1]}]}


def broken(monkeypatch):
    """From now on an MLP of a model of one layer fails as foreign code does."""
    whole = LlamaMLP.forward

    def forward(self, x):
        if self.config.num_hidden_layers == 1:
            raise IndexError("index 7 is out of\n  bounds")
        return whole(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", forward)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (COMPARE, COMPARE),
        ("measure speed", "measure before and after"),
        (RELOAD, RELOAD),
    ],
)
def test_it_says_stage_block_and_error_and_publishes_nothing(saved_llama, tmp_path, monkeypatch, stage, said):
    model = saved_llama(num_hidden_layers=2)

    def told(now, done, total):
        if now == stage and done == 0:
            broken(monkeypatch)

    with pytest.raises(VerifyError) as caught:
        surgeon.run(RECIPE, model=model, out=tmp_path / "small", progress=told)
    assert caught.value.message == (
        f"{said}: the model's own code fails in 'model.layers.0.mlp' (LlamaMLP): "
        "IndexError: index 7 is out of bounds"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_verify_says_it_too(saved_llama, tmp_path, monkeypatch):
    model, out = saved_llama(num_hidden_layers=2), tmp_path / "small"
    surgeon.run(RECIPE, model=model, out=out, proof=False)

    def told(now, done, total):
        if now == COMPARE:
            broken(monkeypatch)

    with pytest.raises(VerifyError, match=r"fails in 'model\.layers\.0\.mlp' \(LlamaMLP\): IndexError"):
        verify_folder(out, model, progress=told)


def test_outside_of_modules_there_is_no_place_to_name():
    with (
        pytest.raises(VerifyError, match=r"^a stage: the model's own code fails: KeyError: 'x'"),
        explained("a stage"),
    ):
        {}["x"]


@pytest.mark.parametrize("error", [InputError("own"), OSError(28, "full"), KeyboardInterrupt()])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, explained("a stage"):
        raise error
    assert caught.value is error


def test_an_original_that_fails_with_a_cache_is_measured_without_one(tmp_path):
    # Stock transformers asks the cache for a length that none of these layers counts.
    config = BambaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=12,
        vocab_size=50,
        mamba_d_state=4,
        mamba_n_heads=4,
        mamba_d_head=8,
    )
    BambaForCausalLM(config).save_pretrained(tmp_path / "model")
    report = surgeon.run(RECIPE, model=tmp_path / "model", out=tmp_path / "small")
    assert set(report.measured["metrics"]) == {"parameters", "bytes"}
    assert all(
        "the original fails: ValueError: `get_seq_length`" in why
        for why in report.measured["unmeasured"].values()
    )
    assert any("so it does with the original" in said for said in report.measured["checks"])
