"""
Documents that came as token ids: checks that the model's tokenizer made them, and finds where documents begin.

The check is needed since ids of another tokenizer are valid ids of this one, too, and give a plausible loss.
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
_N_CHECKED_ROWS = 64
"""rows that are compared with their text, or decoded and encoded again."""
_MAX_LOST_PER_ROW, _MAX_LOST_SHARE = 1, 0.005
"""
Ids that may change when they are decoded and encoded again: those at the ends of rows, which may cut words, and few
others. In rows of 128 tokens the tokenizers of GPT-2 and stories260K lost 0.0 and 0.4 of their own ids per row; GPT-2's
lost 7 to 26 of ids that were shuffled, off by one or the other tokenizer's. A tokenizer of whole words never loses any.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenisation:
    """How a dataset states that its ids were made."""

    tokenizer_name: str | None
    is_packed_unmarked: bool
    """documents follow each other within a row with neither BOS nor EOS between them."""


def stated_tokenisation(source: CorpusSource) -> Tokenisation:
    """
    Read `sae_lens.json` beside the data, which SAE Lens's PretokenizeRunner writes, or a parquet file's metadata.

    Raises:
        HubError: the file cannot be fetched.
    """
    stated: dict[str, object] = {}
    if source.dataset is not None:
        if source.dataset.file(SAE_LENS_FILE) is not None:
            stated = _json(hub.fetch(source.dataset, SAE_LENS_FILE))
    elif source.path is not None:
        stated = _parquet_metadata(source.path) if source.path.suffix == ".parquet" else {}
        stated |= _json(source.path.parent / SAE_LENS_FILE)
    name = stated.get("tokenizer_name")
    concatenates = stated.get("disable_concat_sequences") is False
    return Tokenisation(
        tokenizer_name=name if isinstance(name, str) and name else None,
        is_packed_unmarked=concatenates
        and all(stated.get(key) not in ("bos", "eos") for key in ("sequence_separator_token", "begin_sequence_token")),
    )


def check(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    stated: Tokenisation,
    *,
    flag: str,
    source: str,
    model: str | None,
) -> None:
    """
    Check that *tokenizer* made the ids of *documents*.

    A stated tokenizer must be the model's. Every id must be in the vocabulary. Ids must encode the row's own text; in
    rows without text they must stay the same when they are decoded and encoded again.

    Args:
        documents: rows of the corpus.
        tokenizer: the model's.
        stated: what the dataset states.
        flag: the option that names the corpus, for messages.
        source: name of the corpus, for messages.
        model: id of the tokenizer's repository; None: it came from a folder.

    Raises:
        MeasuringError: a check fails, or documents are packed without a boundary between them.
    """
    name = stated.tokenizer_name
    if name is not None and model is not None and _short(name) != _short(model):
        raise errors.other_tokenizer(flag, source, f"it was made with the tokenizer {name}, the model is {model}")
    if stated.is_packed_unmarked:
        raise errors.packed_unmarked(flag, source)
    n_vocabulary = len(tokenizer)
    for index, row in enumerate(documents):
        if isinstance(row, Pretokenised) and (largest := max(row.ids, default=0)) >= n_vocabulary:
            problem = f"row {index} has the id {largest}, the vocabulary has {n_vocabulary}"
            raise errors.other_tokenizer(flag, source, problem)
    difference = _find_changed_ids(unpacked(documents, tokenizer), tokenizer)
    if difference is not None:
        raise errors.other_tokenizer(flag, source, difference)


def _find_changed_ids(documents: Sequence[Document], tokenizer: Tokenizer) -> str | None:
    """How the ids of some *documents* differ from what *tokenizer* makes of their text; None if they do not."""
    chosen = [i for i, row in enumerate(documents) if isinstance(row, Pretokenised) and len(row.ids) > 1]
    without_text: list[tuple[int, ...]] = []
    # WHY spread over the file: a file put together from two may have two tokenizers
    for index in chosen[:: max(1, len(chosen) // _N_CHECKED_ROWS)]:
        row = documents[index]
        assert isinstance(row, Pretokenised)
        if row.text is not None and (difference := _differs_from_text(row, tokenizer)) is not None:
            return f"row {index}: {difference}"
        without_text += [row.ids] if row.text is None else []
    losses = [_count_lost(ids, tokenizer) for ids in without_text]
    n_lost, n_all = (sum(counts) for counts in zip((0, 0), *losses, strict=True))
    # WHY all rows together: some rows of a wrong tokenizer come back whole, since many tokens are whole words
    if n_lost > _MAX_LOST_PER_ROW * len(losses) + _MAX_LOST_SHARE * n_all:
        return f"decoded and encoded again, {n_lost} of {n_all} ids in {len(losses)} rows do not come back"
    return None


def unpacked(documents: Sequence[Document], tokenizer: Tokenizer) -> tuple[Document, ...]:
    """
    Cut rows of token ids at document boundaries (BOS or EOS), so that each document gives at most one sequence.

    A row keeps its ids up to the first boundary within it. If rows are packed, it keeps none unless a boundary lies
    between it and the last row that kept some: both may belong to one document. What is kept may begin within its
    document, as the text that SAEs are trained on does. Nearly all pretokenised datasets are packed, so they are not
    refused.

    A row that repeats an earlier one is treated as that was, so that copies change nothing for other rows.

    Returns:
        As many rows as there are *documents*; a row that is not used has no ids. Rows of text are unchanged.
    """
    boundaries = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    pieces_of_rows = [_split(row.ids, boundaries) if isinstance(row, Pretokenised) else [] for row in documents]
    is_packed = any(sum(map(bool, pieces)) > 1 for pieces in pieces_of_rows)
    rows: list[Document] = []
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    is_new_document = True
    for row, pieces in zip(documents, pieces_of_rows, strict=True):
        if not isinstance(row, Pretokenised):
            rows.append(row)
            continue
        if row.ids in known:
            rows.append(Pretokenised(ids=known[row.ids], text=row.text))
            continue
        first = next((i for i, piece in enumerate(pieces) if piece), len(pieces))
        is_used = first < len(pieces) and (is_new_document or not is_packed)
        ids = pieces[first] if is_used else ()
        if first < len(pieces):  # TRAP: rows of boundaries alone are all the same, and each ends a document
            known[row.ids] = ids
        rows.append(Pretokenised(ids=ids, text=row.text))
        # TRAP: a boundary at the start of a row may stand before every row, so it does not show a new document
        is_new_document = first + 1 < len(pieces) or (is_new_document and first == len(pieces))
    return tuple(rows)


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


def _count_lost(row: Sequence[int], tokenizer: Tokenizer) -> tuple[int, int]:
    """Number of ids of *row* that are lost when decoded and encoded again, and number of ids, without special ones."""
    special = set(tokenizer.all_special_ids)
    ids = [i for i in row if i not in special]
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return (Counter(ids) - Counter(encode(tokenizer, text))).total(), len(ids)


def _short(name: str) -> str:
    """The lower-case name without owner of `org/name`, an alias of TransformerLens or a name: gpt2 for gpt2-small."""
    return (registry.hub_model_name(name) or name).rpartition("/")[2].lower()


def _json(path: Path) -> dict[str, object]:
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # no such file, or not JSON
        return {}
    return stated if isinstance(stated, dict) else {}


def _parquet_metadata(path: Path) -> dict[str, object]:
    from pyarrow import parquet

    metadata = parquet.read_schema(path).metadata or {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
