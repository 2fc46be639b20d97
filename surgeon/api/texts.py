"""Texts, however they were handed in, to calibration samples and to token ids to measure on.

A text is a file by its name, or token ids. Not here: what the files may hold (`surgeon.io`), how samples
are drawn (`surgeon.calibrate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from surgeon.api.subject import Subject
from surgeon.calibrate import Samples, check_ids, encode, pack, rows, shares
from surgeon.errors import InputError
from surgeon.io import TextFile, read_texts
from surgeon.io.hub_texts import read_dataset
from surgeon.recipe import Calibration, Recipe, TextSource

__all__ = ["Text", "calibration_samples", "drawn_texts", "evaluation_ids", "token_ids"]

Text = str | Path | Sequence[int] | Tensor
"""A file by its name, or token ids: [n], or [rows, n]."""


def calibration_samples(
    recipe: Recipe, subject: Subject, texts: Sequence[Text] | None = None
) -> Callable[[], Samples] | None:
    """What reads the calibration samples, once, when first called; None where there is no text.

    `texts` replace those that the recipe names; how many samples are drawn from them, and how long they
    are, is the recipe's matter.
    """
    if recipe.calibration is None and texts is None:
        return None
    settings = recipe.calibration or Calibration(texts=(TextSource(path="texts"),))
    read: list[Samples] = []

    def samples() -> Samples:
        if not read:
            if texts is None:
                found, weights = _recipe_texts(recipe, "calibration", settings.texts, settings.field)
                domains = tuple(source.domain for source in settings.texts)
            else:
                found, weights, domains = (_gathered(texts),), (1.0,), ("texts",)
            read.append(_drawn(found, weights, domains, settings, subject))
        return read[0]

    return samples


def drawn_texts(texts: Iterable[Text], settings: Calibration, subject: Subject) -> Samples:
    """The samples that `settings` ask for, of texts that were handed in."""
    return _drawn((_gathered(texts),), (1.0,), ("texts",), settings, subject)


def evaluation_ids(recipe: Recipe, subject: Subject) -> Tensor | None:
    """Token ids [n] of the recipe's held-out text, or None where it names none."""
    if recipe.evaluation is None:
        return None
    found, _ = _recipe_texts(recipe, "evaluation", recipe.evaluation.texts, recipe.evaluation.field)
    return _joined(found, subject)


def token_ids(text: Text | Sequence[Text], subject: Subject) -> Tensor:
    """Token ids [n] of one text or of several, one after the other."""
    several = isinstance(text, Sequence) and not isinstance(text, str) and not _is_ids(text)
    return _joined((_gathered(text if several else [text]),), subject)  # type: ignore[list-item, arg-type]


def _recipe_texts(
    recipe: Recipe, section: str, sources: Sequence[TextSource], field: str | None
) -> tuple[tuple[TextFile, ...], tuple[float, ...]]:
    found = []
    for number, source in enumerate(sources):
        places = recipe.candidates((section, "texts", number, "path"), source.path)
        there = next((place for place in places if place.exists()), None)
        column = source.field or field
        if source.split is None:
            found.append(read_texts(there or places[0], column))
        else:
            found.append(read_dataset(str(there or source.path), source.split, source.config, column))
    return tuple(found), tuple(source.weight for source in sources)


def _gathered(texts: Iterable[Text]) -> TextFile:
    """Texts that were handed in, as one file of documents or of rows of ids."""
    documents: list[str] = []
    lines: list[tuple[int, ...]] = []
    for text in texts:
        if isinstance(text, str | Path):
            file = read_texts(text)
            documents += file.documents
            lines += file.rows
        else:
            ids = torch.as_tensor(text)
            lines += [tuple(row) for row in ids.reshape(-1, ids.shape[-1]).tolist()]
    if bool(documents) == bool(lines):
        raise InputError("texts hold nothing, or both text and token ids", hint="give one sort of texts")
    return TextFile(Path("texts"), tuple(documents), tuple(lines))


def _drawn(
    files: Sequence[TextFile],
    weights: Sequence[float],
    domains: Sequence[str],
    settings: Calibration,
    subject: Subject,
) -> Samples:
    """The samples that `settings` ask for, from several files in proportion to their weights.

    Of a single file of token ids, every row is a sample as it is, unless the recipe says otherwise.
    """
    if len(files) == 1 and files[0].rows:
        said = settings.model_fields_set
        check_ids(files[0].rows, _vocabulary(subject))
        return rows(
            files[0].rows,
            settings.samples if "samples" in said else None,
            settings.seq_len if "seq_len" in said else None,
        ).of(domains[0])
    parts: list[Samples] = []
    for file, count, domain in zip(files, shares(settings.samples, weights), domains, strict=True):
        if not count:
            continue
        if file.rows:
            check_ids(file.rows, _vocabulary(subject))
            parts.append(rows(file.rows, count, settings.seq_len).of(domain))
        else:
            stream = encode(subject.tokenizer(), file.documents)
            parts.append(pack(stream, count, settings.seq_len, settings.seed).of(domain))
    return Samples.joined(parts)


def _joined(files: Sequence[TextFile], subject: Subject) -> Tensor:
    stream: list[int] = []
    for file in files:
        check_ids(file.rows, _vocabulary(subject))
        for row in file.rows:
            stream += row
        if file.documents:
            stream += encode(subject.tokenizer(), file.documents)
    return torch.tensor(stream, device=subject.device)


def _vocabulary(subject: Subject) -> int:
    """Number of token ids that the model has an embedding for."""
    embedding = subject.structure.get_input_embeddings()  # type: ignore[operator]
    return embedding.weight.shape[0]


def _is_ids(text: object) -> bool:
    return isinstance(text, Tensor) or (
        isinstance(text, Sequence) and bool(text) and all(isinstance(token, int) for token in text)
    )
