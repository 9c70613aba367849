"""Lambada: the last word of each passage is predicted token by token, as lm-evaluation-harness defines it."""

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
    max_rows: int,
    seed: int,
) -> Sequences:
    """
    Tokenise at most *max_rows* passages in seeded order; only the tokens of the last word are scored.

    TRAP: the last word encoded alone could give other tokens. So the whole passage is encoded once, and split after as
    many tokens as the text before the word has. Passages longer than the context lose their beginning, after the BOS.

    Args:
        passages: rows of the corpus.
        tokenizer: the model's.
        convention: how text becomes tokens.
        bos: token before every sequence; None: no such token.
        max_rows: number of passages to take.
        seed: of the order.

    Raises:
        MeasuringError: the last word of a passage has no token of its own, or fills the context.

    Source: lm-evaluation-harness 0.4.13, lm_eval/api/model.py, `TemplateLM._encode_pair`.
    """

    def rows() -> Iterator[TokenRow]:
        for index in seeded_order(passages, seed)[:max_rows]:
            context = passages[index].rpartition(" ")[0].rstrip()
            whole = encode(tokenizer, passages[index])
            n_target = len(whole) - len(encode(tokenizer, context))
            lead = [] if bos is None else [bos]
            kept = whole[-(convention.n_context_tokens - len(lead)) :]
            tokens = [*lead, *kept]
            if not 1 <= n_target < len(tokens):
                raise errors.no_answer_tokens(index, n_target, convention.n_context_tokens)
            yield TokenRow(row=index, tokens=tokens, n_given=len(tokens) - n_target, was_cut=len(kept) < len(whole))

    # score_special: the answer is the whole word, and an <unk> in it counts like any other token
    return build(rows(), convention, tokenizer.all_special_ids, score_special=True)
