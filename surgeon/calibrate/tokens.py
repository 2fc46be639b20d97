"""Text to one stream of token ids, with whatever tokenizer is handed in.

Every document is encoded by itself with the special tokens that its tokenizer adds (so a beginning-of-
text token stands before each document where the tokenizer puts one), and the ids are joined. Not here:
loading a tokenizer or a file (`surgeon.io`), cutting the stream (`surgeon.calibrate.packing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from surgeon.errors import InputError

__all__ = ["Encoder", "check_ids", "encode"]


class Encoder(Protocol):
    """What `encode` needs of a tokenizer; those of transformers have it."""

    def encode(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True) -> Sequence[int]:
        """Token ids of `text`."""
        ...


def encode(tokenizer: Encoder, documents: Sequence[str]) -> tuple[int, ...]:
    """Ids of all `documents`, one stream.

    Raises:
        InputError: the documents hold no token.
    """
    stream: list[int] = []
    for document in documents:
        stream.extend(tokenizer.encode(document, add_special_tokens=True, verbose=False))
    if not stream:
        raise InputError("the calibration text holds no token", hint="a text file that is not empty")
    return tuple(stream)


def check_ids(token_rows: Sequence[Sequence[int]], vocabulary: int) -> None:
    """Refuse ids that the model has no embedding for.

    Raises:
        InputError: an id is negative or not below `vocabulary`.
    """
    for place, row in enumerate(token_rows):
        outside = [token for token in row if not 0 <= token < vocabulary]
        if outside:
            raise InputError(
                f"row {place} of the calibration tokens holds id {outside[0]}; the model's vocabulary "
                f"has {vocabulary} (ids 0 to {vocabulary - 1})",
                hint="ids made with this model's own tokenizer",
            )
