"""Token sequences with their masks, the common form of all corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sae_checks.losses import Counts, Flags


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    all_special_ids: list[int]
    bos_token_id: int | None
    eos_token_id: int | None
    name_or_path: str
    """folder that it was loaded from."""

    def __call__(self, text: str, **kwargs: object) -> dict[str, list[int]]: ...

    def __len__(self) -> int: ...

    def decode(self, ids: list[int], **kwargs: object) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How text becomes tokens, and which positions are replaced and scored."""

    prepend_bos: bool
    special_tokens_kept: bool
    """special tokens keep their activations and are not scored."""
    n_context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """Token sequences in seeded order, padded on the right."""

    tokens: NDArray[np.int64]  # (n_sequences, n_positions)
    lengths: Counts  # (n_sequences,) tokens without padding
    replaced: Flags  # (n_sequences, n_positions) whether the activation here is replaced
    scored: Flags  # (n_sequences, n_positions) whether the prediction made here, of the next token, is scored
    rows: Counts  # (n_sequences,) index of the document or item in its file
    n_cut: int
    """number of sequences that were longer than the context."""
    n_copies: int = 0
    """number of documents or items that were left out because they repeat others."""

    def first(self, n_sequences: int, n_positions: int) -> Sequences:
        """The first *n_sequences*, cut to the tokens that predictions at the first *n_positions* need."""
        n_tokens = n_positions + 1  # + 1: the token that the last position predicts
        scored = self.scored[:n_sequences, :n_tokens].copy()
        scored[:, n_positions:] = False
        return Sequences(
            tokens=self.tokens[:n_sequences, :n_tokens],
            lengths=np.minimum(self.lengths[:n_sequences], n_tokens),
            replaced=self.replaced[:n_sequences, :n_tokens],
            scored=scored,
            rows=self.rows[:n_sequences],
            n_cut=self.n_cut,
            n_copies=self.n_copies,
        )

    @property
    def fingerprint(self) -> str:
        """
        sha256 of tokens, lengths and masks: with equal fingerprints, the same predictions are scored.

        Row indices are left out, so that a dataset and a file with the same texts have the same fingerprint.
        """
        digest = hashlib.sha256()
        for array in (self.tokens, self.lengths, self.replaced, self.scored):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One sequence before padding."""

    row: int
    """index of the document or item in its file."""
    tokens: Sequence[int]
    n_given: int
    """number of tokens at the beginning that are not scored."""
    was_cut: bool


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """
    Ids of *text*, without a BOS and without special tokens.

    A special token that is spelled out in the text is ordinary text. So in pretokenised ids, BOS and EOS can only be
    boundaries.
    """
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return list(ids)


def token_texts(sequences: Sequences, i: int, tokenizer: Tokenizer) -> tuple[str, ...]:
    """
    The tokens of sequence *i* as text, each decoded together with the token before it.

    TRAP: a SentencePiece token decoded alone loses its leading space.
    """
    ids = sequences.tokens[i, : sequences.lengths[i]].tolist()
    return (_decode(tokenizer, ids[:1]), *(text_after(tokenizer, *pair) for pair in pairwise(ids)))


def text_after(tokenizer: Tokenizer, before: int, token: int) -> str:
    """The text that *token* adds to the token *before*."""
    first, both = _decode(tokenizer, [before]), _decode(tokenizer, [before, token])
    # TRAP: the first token of a character that takes several decodes differently without the others
    return both.removeprefix(first) if both.startswith(first) else _decode(tokenizer, [token])


def _decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def seeded_order(texts: Sequence[str], seed: int) -> list[int]:
    """
    Indices of *texts* in an order that depends on *seed* and the texts alone, not on their order in the file.

    WHY sorted by a hash: library shuffles change with versions, and the order must not.
    """
    return sorted(
        range(len(texts)), key=lambda i: hashlib.sha256(f"{seed}:{texts[i]}".encode()).digest() + i.to_bytes(8)
    )


def build(
    rows: Iterable[TokenRow],
    convention: Convention,
    special_ids: Iterable[int],
    *,
    score_special: bool,
    n_copies: int = 0,
) -> Sequences:
    """
    Pad *rows* and compute their masks.

    TRAP: padding is known by length, not by token id, since GPT-2's BOS, EOS and padding have one id.

    Args:
        rows: sequences without padding.
        convention: how text becomes tokens.
        special_ids: ids of special tokens.
        score_special: also score predictions made from or of a special token; without effect unless the convention
            keeps special tokens, since all are scored then.
        n_copies: number of copies that were left out of *rows*.
    """
    rows = list(rows)
    n_positions = max((len(row.tokens) for row in rows), default=0)
    tokens = np.zeros((len(rows), n_positions), dtype=np.int64)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = row.tokens
    lengths = np.array([len(row.tokens) for row in rows], dtype=np.int64)
    n_given = np.array([row.n_given for row in rows], dtype=np.int64)
    position = np.arange(n_positions)
    real = position < lengths[:, None]  # (n_sequences, n_positions)
    special = np.isin(tokens, list(special_ids)) if convention.special_tokens_kept else np.zeros_like(real)
    unscored = np.zeros_like(special) if score_special else special | np.pad(special[:, 1:], ((0, 0), (0, 1)))
    target = position[None, :] + 1
    return Sequences(
        tokens=tokens,
        lengths=lengths,
        replaced=real & ~special,
        scored=(target < lengths[:, None]) & (target >= n_given[:, None]) & ~unscored,
        rows=np.array([row.row for row in rows], dtype=np.int64),
        n_cut=sum(row.was_cut for row in rows),
        n_copies=n_copies,
    )
