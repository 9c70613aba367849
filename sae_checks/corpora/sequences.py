"""Tokens and masks, the same noun for every source."""

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
    """What is used of a transformers tokenizer."""

    all_special_ids: list[int]
    bos_token_id: int | None
    eos_token_id: int | None
    name_or_path: str
    """the folder that it was loaded from."""

    def __call__(self, text: str, **kwargs: object) -> dict[str, list[int]]: ...

    def __len__(self) -> int: ...

    def decode(self, ids: list[int], **kwargs: object) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How text becomes tokens, and which positions count. Part of every fingerprint."""

    prepend_bos: bool
    special_tokens_kept: bool
    """special tokens are neither replaced nor scored."""
    n_context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """Token sequences in the order of the plan, padded on the right."""

    tokens: NDArray[np.int64]  # (n_sequences, n_positions)
    lengths: Counts  # (n_sequences,) tokens that are not padding
    replaced: Flags  # (n_sequences, n_positions) the activation here is replaced
    scored: Flags  # (n_sequences, n_positions) the prediction made here, of the next token, is scored
    rows: Counts  # (n_sequences,) index of the document or item in its file
    n_cut: int
    """sequences that lost tokens to the context."""

    def first(self, n_sequences: int, n_positions: int) -> Sequences:
        """The first *n_sequences*, cut so that predictions at the first *n_positions* can still be scored."""
        n_tokens = n_positions + 1  # what the last of them predicts
        scored = self.scored[:n_sequences, :n_tokens].copy()
        scored[:, n_positions:] = False
        return Sequences(
            tokens=self.tokens[:n_sequences, :n_tokens],
            lengths=np.minimum(self.lengths[:n_sequences], n_tokens),
            replaced=self.replaced[:n_sequences, :n_tokens],
            scored=scored,
            rows=self.rows[:n_sequences],
            n_cut=self.n_cut,
        )

    @property
    def fingerprint(self) -> str:
        """
        sha256 over tokens, lengths and masks: equal fingerprints mean that the same predictions are scored.

        Not over rows: the same texts as a file and as a dataset, streamed in another order, are the same.
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
    """index in its file."""
    tokens: Sequence[int]
    n_given: int
    """tokens before this index are context alone: predictions of them are not scored."""
    was_cut: bool


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """
    Ids of *text* alone: no BOS is added, and a special token spelled out in the text is ordinary text.

    So a special id is never a document's own: in ids that came ready-made BOS and EOS are boundaries.
    """
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return list(ids)


def shown(sequences: Sequences, i: int, tokenizer: Tokenizer) -> tuple[str, ...]:
    """
    The tokens of sequence *i* as text, each as it reads behind the one before it.

    By itself a SentencePiece token loses the space before it.
    """
    ids = sequences.tokens[i, : sequences.lengths[i]].tolist()
    found = [_decoded(tokenizer, ids[:1])]
    found += [reads_behind(tokenizer, *pair) for pair in pairwise(ids)]
    return tuple(found)


def reads_behind(tokenizer: Tokenizer, before: int, token: int) -> str:
    """*token* as text, as it reads behind the token *before*."""
    first, both = _decoded(tokenizer, [before]), _decoded(tokenizer, [before, token])
    # of a character that takes several tokens the first alone reads otherwise
    return both.removeprefix(first) if both.startswith(first) else _decoded(tokenizer, [token])


def _decoded(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def seeded_order(texts: Sequence[str], seed: int) -> list[int]:
    """
    Indices of *texts* in an order that depends on *seed* and on the texts, not on how the file is sorted.

    Sorted by a hash, since library shuffles change with versions and a plan must not.
    """
    return sorted(
        range(len(texts)), key=lambda i: hashlib.sha256(f"{seed}:{texts[i]}".encode()).digest() + i.to_bytes(8)
    )


def build(
    rows: Iterable[TokenRow], convention: Convention, special_ids: Iterable[int], *, score_special: bool
) -> Sequences:
    """
    Pad and mask.

    Padding is known by length, never by token id: GPT-2's BOS, EOS and padding are one id. A prediction made from or of
    a special token is scored only if *score_special*, or if special tokens are not kept apart at all.
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
    )
