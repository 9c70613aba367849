"""Golden prompts as token sequences, to score their answers token by token."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sae_checks import errors
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer, TokenRow, build, encode
from sae_checks.plan.golden_prompts import Golden
from sae_checks.provenance import CorpusFacts


def tokenise(golden: Golden, tokenizer: Tokenizer, *, bos: int | None, n_context_tokens: int) -> Sequences:
    """
    Tokenise the prompts in their order, each followed by its answer; only the answer's tokens are scored.

    Raises:
        MeasuringError: a prompt and its answer share a token, or do not fit into the context.
    """

    def rows() -> Iterator[TokenRow]:
        lead = [] if bos is None else [bos]
        for index, known in enumerate(golden.prompts):
            prompt = [*lead, *encode(tokenizer, known.prompt)]
            whole = [*lead, *encode(tokenizer, known.prompt + known.answer)]
            if not prompt or whole[: len(prompt)] != prompt or len(whole) == len(prompt):
                raise errors.golden_not_scored(known.prompt, known.answer, "the two have no tokens of their own")
            if len(whole) > n_context_tokens:
                raise errors.golden_not_scored(known.prompt, known.answer, f"{len(whole)} tokens")
            yield TokenRow(row=index, tokens=whole, n_given=len(prompt), was_cut=False)

    convention = Convention(
        prepend_bos=golden.prepend_bos,
        special_tokens_kept=golden.special_tokens == "keep",
        n_context_tokens=n_context_tokens,
    )
    return build(rows(), convention, tokenizer.all_special_ids, score_special=True)


def facts(golden: Golden, sequences: Sequences, *, n_context_tokens: int) -> CorpusFacts:
    """Provenance of *golden*, tokenised into *sequences*."""
    return CorpusFacts(
        kind="golden",
        source=golden.where,
        sha256=hashlib.sha256("\0".join(known.prompt + known.answer for known in golden.prompts).encode()).hexdigest(),
        fingerprint=sequences.fingerprint,
        prepend_bos=golden.prepend_bos,
        n_sequences=len(sequences.rows),
        n_scored_tokens=int(sequences.scored.sum()),
        n_context_tokens=n_context_tokens,
        n_truncated=sequences.n_cut,
    )
