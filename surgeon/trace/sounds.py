"""What sounds look like to a model: spectra over frames, as long as the config's numbers tell.

Which of the layouts a model wants is found by trying them (`modalities`). Not here: `pictures`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.trace.numbers import config_fields, unused_primes

__all__ = ["sounds"]

_MASKS = ("input_features_mask", "feature_attention_mask", "padding_mask")
Feed = dict[str, Tensor]


def sounds(module: nn.Module, names: Mapping[str, Any], rows: int) -> Iterator[Feed]:
    """Features [rows, bins, frames] or [rows, frames, bins], as long as the config's numbers tell.

    Or whole windows of frames. Beside masks over the frames where there are any, then without.
    """
    if "input_features" not in names:
        return
    bins = [v for n, v in config_fields(module) if n.endswith(("mel_bins", "input_dim", "input_feat_size"))]
    spans = [v for n, v in config_fields(module) if n.endswith("source_positions")]
    frames = [span * step for span in spans if isinstance(span, int) for step in (2, 4, 1)]
    windows = [v for n, v in config_fields(module) if n.endswith("window") and v and isinstance(v, int)]
    prime = unused_primes(module)[3]
    for length in [*frames, 8 * prime, *(2 * window * prime for window in windows)]:
        for width in [size for size in bins if isinstance(size, int)]:
            for shape in ((rows, width, length), (rows, length, width)):
                sound = {"input_features": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
                whole = torch.ones(rows, length, dtype=torch.int64)
                masks = {name: whole for name in _MASKS if name in names}
                yield from [sound | masks, sound] if masks else [sound]
