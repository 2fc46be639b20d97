"""Token ids to calibration samples of one length.

Protocol for text (`pack`): all documents make one stream; the stream is cut from its start into
non-overlapping windows of `seq_len`, a rest is left over; `samples` windows are drawn without
replacement by `seed` and kept in the order drawn. Protocol for token rows (`rows`): every row is a
sample, the first `samples` in order; a longer row is cut at its end, a shorter one padded at its end
and masked. Not here: reading files (`surgeon.io`), text to ids (`surgeon.calibrate.tokens`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from surgeon.errors import InputError

__all__ = ["Samples", "pack", "rows", "shares"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Calibration samples: `ids` [samples, seq_len] int64, `mask` [samples, seq_len] bool, True is text.

    `domains`: of each sample the name of the text that it comes from; empty where nobody said.
    """

    ids: Tensor
    mask: Tensor
    domains: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def targets(self) -> Tensor:
        """Which tokens are predicted from the one before, [samples, seq_len - 1] bool."""
        return self.mask[:, 1:] & self.mask[:, :-1]

    @property
    def predicted(self) -> int:
        """How many tokens are predicted in all."""
        return int(self.targets.sum())

    def batches(self, size: int) -> Iterator[Samples]:
        """The samples in order, `size` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Samples(self.ids[part], self.mask[part], self.domains[part])

    def unpadded(self, size: int) -> Iterator[Samples]:
        """The samples in order without padding: up to `size` neighbours of equal length at a time.

        All of a batch are of one domain. A sample whose text has a gap, so that padding cannot be cut off,
        comes alone and as it is.
        """
        pending: list[Tensor] = []
        domain, domains = "", self.domains or ("",) * len(self)
        for ids, mask, own in zip(self.ids, self.mask, domains, strict=True):
            places = mask.nonzero().flatten()
            if not len(places):
                continue
            first, last = int(places[0]), int(places[-1]) + 1
            gap = last - first > len(places)
            apart = gap or own != domain or len(pending) == size
            if pending and (apart or len(pending[0]) != last - first):
                yield _dense(pending, domain)
                pending = []
            domain = own
            if gap:
                yield Samples(ids[None], mask[None], (own,) if own else ())
            else:
                pending.append(ids[first:last])
        if pending:
            yield _dense(pending, domain)

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        """All samples of `parts`, in order; shorter ones are padded to the longest."""
        length = max(part.ids.shape[1] for part in parts)
        grown = [_padded(part, length) for part in parts]
        named = any(part.domains for part in parts)
        domains = (part.domains or ("",) * len(part) for part in parts) if named else ()
        ids, mask = torch.cat([p.ids for p in grown]), torch.cat([p.mask for p in grown])
        return Samples(ids, mask, tuple(chain.from_iterable(domains)))

    def of(self, domain: str) -> Samples:
        """The same samples, all of one domain."""
        return Samples(self.ids, self.mask, (domain,) * len(self))


def _dense(rows_of_ids: Sequence[Tensor], domain: str) -> Samples:
    ids = torch.stack(list(rows_of_ids))
    return Samples(ids, torch.ones_like(ids, dtype=torch.bool), (domain,) * len(ids) if domain else ())


def pack(stream: Sequence[int], samples: int, seq_len: int, seed: int) -> Samples:
    """Draw `samples` windows of `seq_len` tokens from one stream of ids.

    Raises:
        InputError: `seq_len` is below 2, or the stream holds fewer windows than asked.
    """
    _check_length(seq_len)
    windows = len(stream) // seq_len
    if windows < samples:
        raise InputError(
            f"calibration asks for {samples} samples of {seq_len} tokens ({samples * seq_len} tokens); "
            f"the text has {len(stream)} tokens, which makes {windows}",
            hint=f"samples: {windows}, a shorter seq_len, or more text" if windows else "more text",
        )
    order = torch.randperm(windows, generator=torch.Generator().manual_seed(seed))[:samples]
    cut = torch.tensor(stream[: windows * seq_len], dtype=torch.int64).view(windows, seq_len)
    ids = cut[order].contiguous()
    return Samples(ids, torch.ones_like(ids, dtype=torch.bool))


def rows(
    token_rows: Sequence[Sequence[int]], samples: int | None = None, seq_len: int | None = None
) -> Samples:
    """Take rows of ids as they are; None for `samples` takes all, for `seq_len` the longest row.

    Raises:
        InputError: fewer rows than asked, or a row of fewer than two tokens.
    """
    count = len(token_rows) if samples is None else samples
    if not token_rows or len(token_rows) < count:
        raise InputError(
            f"calibration asks for {count} samples; the token file has {len(token_rows)} rows",
            hint=f"samples: {len(token_rows)}" if token_rows else "a file with at least one row of ids",
        )
    chosen = [list(row) for row in token_rows[:count]]
    short = [place for place, row in enumerate(chosen) if len(row) < 2]
    if short:
        raise InputError(
            f"rows {short[:5]} of the token file have fewer than 2 tokens; nothing can be predicted there",
            hint="leave these rows out",
        )
    length = max(len(row) for row in chosen) if seq_len is None else seq_len
    _check_length(length)
    parts = [torch.tensor([row[:length]], dtype=torch.int64) for row in chosen]
    return Samples.joined(
        [_padded(Samples(ids, torch.ones_like(ids, dtype=torch.bool)), length) for ids in parts]
    )


def shares(samples: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Split `samples` over texts in proportion to `weights`, by largest remainder, earlier texts first."""
    total = sum(weights)
    exact = [samples * weight / total for weight in weights]
    whole = [int(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda place: (whole[place] - exact[place], place))
    for place in order[: samples - sum(whole)]:
        whole[place] += 1
    return tuple(whole)


def _padded(part: Samples, length: int) -> Samples:
    missing = length - part.ids.shape[1]
    if missing <= 0:
        return part
    pad = torch.nn.functional.pad
    mask = pad(part.mask, (0, missing), value=False)
    return Samples(pad(part.ids, (0, missing)), mask, part.domains)


def _check_length(seq_len: int) -> None:
    if seq_len < 2:
        raise InputError(f"seq_len {seq_len} leaves no token to predict", hint="a seq_len of at least 2")
