"""Lambada: predict the last word of a passage, token by token, as lm-evaluation-harness defines it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sae_checks import errors
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer, TokenRow, build, encode, seeded_order


def tokenise(
    passages: Sequence[str],
    tokenizer: Tokenizer,
    convention: Convention,
    *,
    bos: int | None,
    n_most: int,
    seed: int,
) -> Sequences:
    """
    At most *n_most* passages in seeded order; the predictions of the last word's tokens are scored, nothing else.

    The whole passage is encoded once and split after as many tokens as its context alone has: encoding the word alone
    could give other tokens. Passages longer than the context lose tokens at their beginning, after the BOS.

    Raises:
        MeasuringError: a passage whose last word has no token of its own, or fills the context.

    Source: lm-evaluation-harness 0.4.13, lm_eval/api/model.py, `TemplateLM._encode_pair`.
    """

    def rows() -> Iterator[TokenRow]:
        for index in seeded_order(passages, seed)[:n_most]:
            context = passages[index].rpartition(" ")[0].rstrip()
            whole = encode(tokenizer, passages[index])
            n_target = len(whole) - len(encode(tokenizer, context))
            lead = [] if bos is None else [bos]
            kept = whole[-(convention.n_context_tokens - len(lead)) :]
            tokens = [*lead, *kept]
            if not 1 <= n_target < len(tokens):
                raise errors.no_answer_tokens(index, n_target, convention.n_context_tokens)
            yield TokenRow(row=index, tokens=tokens, n_given=len(tokens) - n_target, was_cut=len(kept) < len(whole))

    # The answer is the whole word: an <unk> in or before it is scored like any other token.
    return build(rows(), convention, tokenizer.all_special_ids, score_special=True)
