"""Lambada: the last word of each passage is predicted token by token, as lm-evaluation-harness defines it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sae_checks import errors
from sae_checks.corpora.copies import SeenItems, end, find
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
    Of passages with the same tokens, all of them scored alike, the first of the file is taken.

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
    lead = [] if bos is None else [bos]

    def cut(index: int) -> tuple[list[int], int, bool]:
        """The tokens of a passage that fit, how many of them are its last word, and whether there were more."""
        context = passages[index].rpartition(" ")[0].rstrip()
        whole = encode(tokenizer, passages[index])
        kept = whole[-(convention.n_context_tokens - len(lead)) :]
        return kept, len(whole) - len(encode(tokenizer, context)), len(kept) < len(whole)

    def row_of(index: int) -> list[int]:
        kept, n_target, _ = cut(index)
        return [n_target, *kept]

    copies = find([end(passage) for passage in passages], row_of, SeenItems)

    def rows() -> Iterator[TokenRow]:
        for index in [i for i in seeded_order(passages, seed) if i not in copies][:max_rows]:
            kept, n_target, was_cut = cut(index)
            tokens = [*lead, *kept]
            if not 1 <= n_target < len(tokens):
                raise errors.no_answer_tokens(index, n_target, convention.n_context_tokens)
            yield TokenRow(row=index, tokens=tokens, n_given=len(tokens) - n_target, was_cut=was_cut)

    # score_special: the answer is the whole word, and an <unk> in it counts like any other token
    return build(rows(), convention, tokenizer.all_special_ids, score_special=True, n_copies=len(copies))
