"""What a config field counts, told by its name; and the tiny size that is given to it.

The only table of the zoo. It knows words that fields are named with, no model. Fields that no row
knows are found by what changing them does (`specimen`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

__all__ = ["COLLIDING", "PROFILES", "SIZES", "USUAL", "Sizes", "size_of"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tiny sizes, different from each other as far as heads, groups and rotary halves divide."""

    hidden: int = 192
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 24
    ffn: int = 160
    expert_ffn: int = 48
    shared_ffn: int = 68
    layers: int = 3
    few_layers: int = 1
    experts: int = 12
    routed: int = 2
    shared_experts: int = 2
    expert_groups: int = 4
    state: int = 16
    ssm_heads: int = 16
    ssm_inner: int = 384
    dt_rank: int = 12
    q_rank: int = 72
    kv_rank: int = 56
    rank: int = 40
    nope_dim: int = 24
    rope_dim: int = 16
    qk_dim: int = 40
    value_dim: int = 32
    index_heads: int = 4
    index_dim: int = 32
    index_kept: int = 8
    positions: int = 128
    window: int = 8
    context: int = 2
    codebooks: int = 1
    image: int = 64
    patch: int = 16
    image_tokens: int = 4
    vocab: int = 248
    period: int = 2

    def with_(self, **changes: int) -> Sizes:
        """The same but for `changes`."""
        return replace(self, **changes)


SIZES = Sizes()

COLLIDING = Sizes(
    hidden=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn=32,
    expert_ffn=16,
    shared_ffn=16,
    layers=4,
    experts=4,
    shared_experts=2,
    expert_groups=2,
    state=8,
    ssm_heads=8,
    ssm_inner=64,
    dt_rank=4,
    q_rank=16,
    kv_rank=16,
    rank=16,
    nope_dim=8,
    rope_dim=8,
    qk_dim=16,
    value_dim=8,
    index_heads=4,
    index_dim=8,
    index_kept=4,
    positions=64,
    vocab=32,
)
"""As many sizes equal to each other as can be: hidden, ffn and vocabulary; heads, layers and experts."""

USUAL = Sizes(
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=128,
    expert_ffn=32,
    shared_ffn=32,
    layers=2,
    experts=8,
    shared_experts=1,
    expert_groups=2,
    ssm_heads=8,
    ssm_inner=128,
    dt_rank=4,
    q_rank=32,
    kv_rank=16,
    rank=16,
    nope_dim=16,
    rope_dim=8,
    qk_dim=24,
    value_dim=16,
    index_dim=16,
    positions=512,
    vocab=99,
)
"""Powers of two and few layers, as tests of models mostly have them."""

PROFILES = {"1": SIZES, "2": COLLIDING, "3": USUAL}
_KNOWN = {field.name for field in fields(Sizes)}

# Words of the field's name, what it counts, smallest value that is replaced. The first match decides.
_ROWS: tuple[tuple[str, str, int], ...] = (
    (r"(token|image|video|audio)_?(id|index|ids)$|_id$|_ids$", "", 0),
    (r"tokens_per_image$", "image_tokens", 5),
    (r"vocab", "vocab", 1000),
    (r"num_channels|in_channels|tokenizer_chunk|kernel|conv_l_cache|stride|buckets|num_labels|_mult$", "", 0),
    (r"num_codebooks", "codebooks", 2),
    (r"^n_window|window_infer$|num_patches$", "", 0),
    (r"chunk_(left|right)_context", "context", 3),
    (r"kpool", "period", 3),
    (r"(period|interval|step|frequency|pattern|every_n_layers|group_size)$", "period", 3),
    (r"^index.*top|index_topk|indexer_budget", "index_kept", 9),
    (r"^index.*heads$", "index_heads", 2),
    (r"^index.*dim$", "index_dim", 2),
    (r"shared_experts?$|share_expert_num", "shared_experts", 2),
    (r"(topk|top_k|num_limited)_?group", "routed", 2),
    (r"(n|num)_(expert_)?group$", "expert_groups", 2),
    (r"experts?_per_tok|top_?k|moe_k$|router_.*num", "routed", 2),
    (r"shared?_?expert.*(size|dim)|shared_intermediate", "shared_ffn", 9),
    (r"(moe|expert).*(intermediate|ffn|hidden)", "expert_ffn", 9),
    (r"expert_capacity", "", 0),
    (r"(n|num|local|routed)_.*experts$|moe_num_experts", "experts", 2),
    (r"dt_rank|time_step_rank", "dt_rank", 2),
    (r"q_lora_rank", "q_rank", 2),
    (r"kv_lora_rank", "kv_rank", 2),
    (r"rank$", "rank", 33),
    (r"qk_nope", "nope_dim", 2),
    (r"rope_head_dim|rotary_dim", "rope_dim", 2),
    (r"^qk_head_dim", "qk_dim", 2),
    (r"d_ssm|ssm_intermediate", "ssm_inner", 2),
    (r"(shared|residual|adapter|mtp|nextn|dense|global|predict)_layers$", "few_layers", 2),
    (r"^v_head_dim|value_dim", "value_dim", 2),
    (r"d_state|state_size|state_dim", "state", 2),
    (r"mamba_?(n_|num_)?heads|n_mamba_heads", "ssm_heads", 3),
    (r"(kv|key_value)_?(n_)?heads?$|num_query_groups|kv_n_heads", "kv_heads", 2),
    (r"head_?dim|d_kv$|dim_head|head_size|d_head|kv_channels|_key_dim", "head_dim", 2),
    (r"n_?heads?$|heads$|heads_per_layer$", "heads", 2),
    (r"intermediate|ffn|d_?ff$|dim_ff|mlp_dim|feed_forward|n_inner|d_inner|mlp_hidden", "ffn", 9),
    (r"(?<!hidden)_layers$|^layers$|n_layers?$|num_layers|depth$|num_blocks|layers_per_stack", "layers", 3),
    (r"max_pos|n_positions|n_ctx|context_length|max_.*len|model_max|_positions$|seq_len", "positions", 129),
    (r"window|radius$|chunk_size|chunk_length|block_size|local_attention|context_size", "window", 17),
    (r"image_size|img_size|crop_size", "image", 65),
    (r"patch_size$", "patch", 9),
    (r"hidden_size|d_model|n_embd|^dim$|embed_dim|hidden_dim|emb_dim|embedding_(size|dim)", "hidden", 33),
    (r"proj_dim|lru_width|d_latents", "hidden", 33),
    (r"(projection|output|out|input|text|vision|adapter).*(dim|size)$", "hidden", 33),
    (r"hidden_layers", "layers", 3),
)
_PATTERNS = tuple((re.compile(words), what, least) for words, what, least in _ROWS)


def size_of(name: str) -> tuple[str, int] | None:
    """What the field called `name` counts and the least value that is replaced; None where unknown.

    A field that is known and stays as it is counts ``""``.
    """
    for pattern, what, least in _PATTERNS:
        if pattern.search(name.lower()):
            return what, least
    return None


assert {what for _, what, _ in _PATTERNS} <= _KNOWN | {""}
