"""A written checkpoint, loaded by the stock auto class and held against the model that was written.

Not here: what was cut (`round_trip`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.zoo import Family
from benchmarks.zoo.running import proof_inputs
from surgeon.rebuild.execution import plain_execution
from surgeon.rebuild.forward import first_output

__all__ = ["difference", "reloaded"]

SAME = 1e-5
"""Allowed difference between a model and its reloaded copy, relative to the largest logit."""

NEW_TOKENS = 5
SAME_TOKENS = "same tokens with and without the cache"
GENERATING = ("causal", "seq2seq", "image_text")


def reloaded(
    family: Family, folder: Path, small: PreTrainedModel, original: PreTrainedModel, tokens: Tensor, own: bool
) -> dict[str, object]:
    """The stock auto class loads `folder` and computes what `small` does; generation with the cache.

    Args:
        family: says which auto class.
        folder: the checkpoint.
        small: the model that was written.
        original: the model before the cut; where its own cached generation goes wrong, nothing is asked.
        tokens: input ids.
        own: whether a modeling file lies beside the weights.
    """
    loaded, report = family.auto_class.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
        trust_remote_code=own,
    )
    faults = {key: sorted(map(str, report[key])) for key in report if report[key]}
    if faults:
        return {"ok": False, "why": f"loaded with gaps: {str(faults)[:300]}"}
    loaded = loaded.eval()
    apart = difference(small, loaded, tokens)
    if not apart <= SAME:
        return {"ok": False, "why": f"logits differ by {apart:.2g} of the largest after reloading"}
    words: dict[str, object] = {"ok": True, "difference": apart}
    if family.task in GENERATING and original.can_generate():
        words["generate"] = said = _generated(loaded, tokens)
        if said != SAME_TOKENS and _generated(original, tokens) == SAME_TOKENS:
            return {**words, "ok": False, "why": f"generate: {said}; the original's is right"}
    return words


def difference(one: PreTrainedModel, other: PreTrainedModel, tokens: Tensor) -> float:
    """Largest difference of the outputs over the largest output."""
    with torch.no_grad():
        outputs = []
        for model in (one, other):
            with plain_execution(model), proof_inputs(model):
                outputs.append(first_output(model(input_ids=tokens)).value.double())
    return float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())


def _generated(model: PreTrainedModel, tokens: Tensor) -> str:
    """Greedy tokens with the cache, against those without it, in words."""
    prompt = tokens[:1, :7]
    told = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    model.generation_config.eos_token_id = None
    if model.config.is_encoder_decoder and model.generation_config.decoder_start_token_id is None:
        told["decoder_start_token_id"] = 0
    mask = torch.ones_like(prompt)
    try:
        with torch.no_grad():
            cached = model.generate(prompt, attention_mask=mask, use_cache=True, **told)
            plain = model.generate(prompt, attention_mask=mask, use_cache=False, **told)
    except Exception as error:  # the finding: foreign code may raise anything on a cut model
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return SAME_TOKENS if torch.equal(cached, plain) else "cached and uncached tokens differ"
