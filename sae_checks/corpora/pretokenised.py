"""
Documents that came as token ids: whose tokenizer made them, and where one document ends and the next begins.

Ids of another tokenizer are ids of this one, too, and give a loss like any other: nothing downstream would notice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_checks import errors
from sae_checks.corpora.rows import Document, Pretokenised
from sae_checks.corpora.sequences import Tokenizer, encode
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.release import hub, registry

SAE_LENS_FILE = "sae_lens.json"
_N_COMPARED = 64
"""Rows that are compared with their text, or decoded and encoded again."""
_N_LOST_PER_ROW, _SHARE_LOST = 1, 0.005
"""
What may be lost of decoded ids when they are encoded again: the ends of rows that begin and end within a word, and
little else. Of rows of 128 tokens the tokenizers of GPT-2 and stories260K lost 0.0 and 0.4 of their own ids per row; of
ids shuffled, off by one or of each other GPT-2's lost 7 to 26. A tokenizer of whole words loses none, whatever the ids.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a dataset says of how its ids were made."""

    tokenizer_name: str | None
    is_packed_unmarked: bool
    """documents follow each other within a row with neither BOS nor EOS between them."""


def making_of(place: CorpusSource) -> Making:
    """
    What `sae_lens.json` beside the data says (SAE Lens's PretokenizeRunner writes it), or a parquet file's metadata.

    Raises:
        HubError: the Hub does not give the file.
    """
    told: dict[str, object] = {}
    if place.dataset is not None:
        if place.dataset.file(SAE_LENS_FILE) is not None:
            told = _json(hub.fetch(place.dataset, SAE_LENS_FILE))
    elif place.path is not None:
        told = _parquet_metadata(place.path) if place.path.suffix == ".parquet" else {}
        told |= _json(place.path.parent / SAE_LENS_FILE)
    name = told.get("tokenizer_name")
    concatenates = told.get("disable_concat_sequences") is False
    return Making(
        tokenizer_name=name if isinstance(name, str) and name else None,
        is_packed_unmarked=concatenates
        and all(told.get(key) not in ("bos", "eos") for key in ("sequence_separator_token", "begin_sequence_token")),
    )


def check(
    documents: Sequence[Document], tokenizer: Tokenizer, making: Making, *, flag: str, source: str, model: str | None
) -> None:
    """
    Refuse ids of another tokenizer than *tokenizer*, that of *model* (None: a folder, whose name says little).

    A stated name must be the model's. Then every id must be in the vocabulary; ids must be those of the row's own text,
    and where there is no text they must come back from decoding and encoding again.

    Raises:
        MeasuringError: one of these is not so, or documents are packed so that nothing tells one from the next.
    """
    stated = making.tokenizer_name
    if stated is not None and model is not None and _short(stated) != _short(model):
        raise errors.other_tokenizer(flag, source, f"it was made with the tokenizer {stated}, the model is {model}")
    if making.is_packed_unmarked:
        raise errors.packed_unmarked(flag, source)
    n_vocabulary = len(tokenizer)
    for index, row in enumerate(documents):
        if isinstance(row, Pretokenised) and (most := max(row.ids, default=0)) >= n_vocabulary:
            problem = f"row {index} has the id {most}, the vocabulary has {n_vocabulary}"
            raise errors.other_tokenizer(flag, source, problem)
    split = unpacked(documents, tokenizer)
    chosen = [i for i, row in enumerate(split) if isinstance(row, Pretokenised) and len(row.ids) > 1]
    compared: list[tuple[int, ...]] = []
    # spread over the file, not its head: a file put together from two may have two tokenizers
    for index in chosen[:: max(1, len(chosen) // _N_COMPARED)]:
        row = split[index]
        assert isinstance(row, Pretokenised)
        if row.text is not None and (disagreement := _differs_from_text(row, tokenizer)) is not None:
            raise errors.other_tokenizer(flag, source, f"row {index}: {disagreement}")
        compared += [row.ids] if row.text is None else []
    n_lost, n_all = (sum(counts) for counts in zip((0, 0), *(_lost(ids, tokenizer) for ids in compared), strict=True))
    # all rows together: a wrong tokenizer's ids come back whole in some row, since many tokens are whole words
    if n_lost > _N_LOST_PER_ROW * len(compared) + _SHARE_LOST * n_all:
        problem = f"decoded and encoded again, {n_lost} of {n_all} ids in {len(compared)} rows do not come back"
        raise errors.other_tokenizer(flag, source, problem)


def unpacked(documents: Sequence[Document], tokenizer: Tokenizer) -> tuple[Document, ...]:
    """
    The same rows without BOS and EOS, each cut at the first of them within it; a row that is not used has no ids left.

    Rows may hold several documents (SAE Lens packs them, with BOS or EOS between). A row is kept up to the first such
    boundary, and used only if a boundary lies between it and the last one used: so each document gives one sequence,
    although one goes over many rows. What is kept may begin within its document, as what SAEs are trained on does.
    Refusing packed rows would refuse nearly every dataset that exists in this form.
    """
    boundaries = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    pieces = [_split(row.ids, boundaries) if isinstance(row, Pretokenised) else [] for row in documents]
    is_packed = any(sum(map(bool, of_row)) > 1 for of_row in pieces)
    kept: list[Document] = []
    is_new = True
    for row, of_row in zip(documents, pieces, strict=True):
        if not isinstance(row, Pretokenised):
            kept.append(row)
            continue
        first = next((i for i, piece in enumerate(of_row) if piece), len(of_row))
        is_used = first < len(of_row) and (is_new or not is_packed)
        kept.append(Pretokenised(ids=of_row[first] if is_used else (), text=row.text))
        # A boundary at the very start of a row may be what every row begins with: it says nothing of documents.
        is_new = first + 1 < len(of_row) or (is_new and first == len(of_row))
    return tuple(kept)


def _split(ids: Sequence[int], boundaries: set[int | None]) -> list[tuple[int, ...]]:
    pieces: list[list[int]] = [[]]
    for token in ids:
        if token in boundaries:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return [tuple(piece) for piece in pieces]


def _differs_from_text(row: Pretokenised, tokenizer: Tokenizer) -> str | None:
    assert row.text is not None
    encoded = tuple(encode(tokenizer, row.text))
    if encoded[: len(row.ids)] == row.ids:
        return None
    return f"its text begins with the ids {list(encoded[:4])}, its ids are {list(row.ids[:4])}"


def _lost(row: Sequence[int], tokenizer: Tokenizer) -> tuple[int, int]:
    """How many ids of *row* do not come back from decoding and encoding, and how many there are; special ones apart."""
    special = set(tokenizer.all_special_ids)
    ids = [i for i in row if i not in special]
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return (Counter(ids) - Counter(encode(tokenizer, text))).total(), len(ids)


def _short(name: str) -> str:
    """`org/name`, an alias of TransformerLens or a name alone, so that they can be compared: gpt2-small is gpt2."""
    return (registry.hub_model_name(name) or name).rpartition("/")[2].lower()


def _json(path: Path) -> dict[str, object]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none, or nothing that says anything
        return {}
    return told if isinstance(told, dict) else {}


def _parquet_metadata(path: Path) -> dict[str, object]:
    from pyarrow import parquet

    found = parquet.read_schema(path).metadata or {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in found.items()}
