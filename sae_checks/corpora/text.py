"""Held-out text: one sequence per document, from its beginning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from sae_checks.corpora.rows import Document, identity
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer, TokenRow, build, encode, seeded_order


def tokenise(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    convention: Convention,
    *,
    bos: int | None,
    max_rows: int,
    seed: int,
) -> Sequences:
    """
    Tokenise at most *max_rows* documents in seeded order, each cut to the context.

    Each document gives one sequence: several from one document would not be independent, and packing documents into
    one sequence would change the loss. Documents of fewer than two tokens are skipped, since nothing can be predicted.

    Args:
        documents: rows of the corpus; token ids as `pretokenised.unpacked` returns them.
        tokenizer: the model's.
        convention: how text becomes tokens.
        bos: token before every sequence; None: no such token.
        max_rows: number of documents to take.
        seed: of the order.
    """

    def rows() -> Iterator[TokenRow]:
        for index in seeded_order([identity(document) for document in documents], seed):
            document = documents[index]
            ids = encode(tokenizer, document) if isinstance(document, str) else list(document.ids)
            if len(ids) < 2:
                continue
            whole = ids if bos is None else [bos, *ids]
            cut = whole[: convention.n_context_tokens]
            yield TokenRow(row=index, tokens=cut, n_given=1, was_cut=len(cut) < len(whole))

    return build(islice(rows(), max_rows), convention, tokenizer.all_special_ids, score_special=False)
