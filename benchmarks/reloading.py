"""A written checkpoint, loaded by the stock auto class and held against the model that was written.

Not here: what was cut (`round_trip`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from benchmarks.zoo import Family
from benchmarks.zoo.running import proof_inputs
from surgeon.rebuild.execution import plain_execution
from surgeon.rebuild.forward import first_output
from surgeon.rebuild.per_layer_class import MODELING_FILE

__all__ = ["difference", "generates_still", "own_save_loads", "reloaded"]

SAME = 1e-5
"""Allowed difference between a model and its reloaded copy, relative to the largest logit."""

NEW_TOKENS = 5
CACHED = 1e-3
"""Allowed difference of logits with and without the cache, relative to the largest; it is float32."""

NOISE = 10
"""How many times as far as the original's, where that is close to the limit itself."""

GENERATING = ("causal", "seq2seq", "image_text")


def reloaded(
    family: Family, folder: Path, small: PreTrainedModel, original: PreTrainedModel, tokens: Tensor, own: bool
) -> dict[str, object]:
    """The stock auto class loads `folder` and computes what `small` does; generation with the cache.

    A config that no auto class knows, the original's neither, is loaded by its own stock class, or by the
    class in the modeling file, which transformers finds.

    Args:
        family: says which auto class.
        folder: the checkpoint.
        small: the model that was written.
        original: the model before the cut; where its own cached generation goes wrong, nothing is asked.
        tokens: input ids.
        own: whether a modeling file lies beside the weights.
    """
    known = type(small.config) in family.auto_class._model_mapping
    loader = family.auto_class if known else family.model_class
    if own and not known:
        name = f"{MODELING_FILE.removesuffix('.py')}.{type(small).__name__}"
        loader = get_class_from_dynamic_module(name, str(folder))
    loaded, report = loader.from_pretrained(
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
    words: dict[str, object] = {"ok": True, "difference": apart, "by": loader.__name__}
    if _asked(family, original):
        fine, words["generate"] = _generates_as(original, loaded, tokens)
        if not fine:
            return {**words, "ok": False, "why": f"generate: {words['generate']}"}
    return words


def own_save_loads(family: Family, original: PreTrainedModel, folder: Path) -> bool:
    """Whether stock transformers loads without gaps what it saves of the original itself."""
    known = type(original.config) in family.auto_class._model_mapping
    loader = family.auto_class if known else family.model_class
    try:
        original.save_pretrained(folder)
        _, report = loader.from_pretrained(folder, output_loading_info=True)
    except Exception:  # the finding: a family may raise anything
        return False
    return not any(report.values())


def generates_still(
    family: Family, small: PreTrainedModel, original: PreTrainedModel, tokens: Tensor
) -> bool:
    """Whether generation with the cache is right as far as it was with `original`."""
    return not _asked(family, original) or _generates_as(original, small, tokens)[0]


def _generates_as(original: PreTrainedModel, small: PreTrainedModel, tokens: Tensor) -> tuple[bool, str]:
    """Whether cached generation is right as far as the original's is, and that in words."""
    fine, said = _generates(small, tokens)
    if fine:
        return True, said
    if not _generates(original, tokens)[0]:
        return True, f"{said}; so do the original's"
    own = _generated(original, tokens)
    fine = _generates(small, tokens, NOISE * own)[0]
    return fine, f"{said}; the original's by {own:.1e}"


def _asked(family: Family, original: PreTrainedModel) -> bool:
    return family.task in GENERATING and original.can_generate()


def difference(one: PreTrainedModel, other: PreTrainedModel, tokens: Tensor) -> float:
    """Largest difference of the outputs over the largest output; what they draw at random is the same."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        outputs = []
        for model in (one, other):
            torch.manual_seed(0)
            with plain_execution(model), proof_inputs(model):
                outputs.append(first_output(model(input_ids=tokens)).value.double())
    return float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())


def _generated(model: PreTrainedModel, tokens: Tensor) -> float:
    """Logits of tokens generated with the cache, against those of one pass without it: how far apart."""
    prompt = tokens[:1, :7]
    told = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    model.generation_config.eos_token_id = None
    two_sided = model.config.is_encoder_decoder
    if two_sided and model.generation_config.decoder_start_token_id is None:
        told["decoder_start_token_id"] = 0
    with torch.no_grad():
        written = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            use_cache=True,
            return_dict_in_generate=True,
            output_logits=True,
            **told,
        )
        cached = torch.stack(written.logits, 1)
        fed = {"input_ids": prompt, "decoder_input_ids": written.sequences} if two_sided else {}
        plain = model(**(fed or {"input_ids": written.sequences}), use_cache=False).logits
    plain = plain[:, -NEW_TOKENS - 1 : -1]
    return float((cached - plain).abs().max() / plain.abs().max())


def _generates(model: PreTrainedModel, tokens: Tensor, allowed: float = CACHED) -> tuple[bool, str]:
    """Whether cached generation computes what a pass without a cache does, and that in words."""
    try:
        apart = _generated(model, tokens)
    except Exception as error:  # the finding: foreign code may raise anything on a cut model
        return False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return apart <= allowed, f"logits with the cache differ by {apart:.1e} from those without"
