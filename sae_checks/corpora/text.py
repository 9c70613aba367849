"""Held-out text: one sequence per document, from its beginning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sae_checks.corpora.rows import Document, identity
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer, TokenRow, build, encode, seeded_order


def tokenise(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    convention: Convention,
    *,
    bos: int | None,
    n_most: int,
    seed: int,
) -> Sequences:
    """
    At most *n_most* documents in seeded order, each cut to the context, one BOS before it if *bos* is given.

    One chunk per document: chunks of one document in a row are not independent, and packing documents behind each
    other changes the loss. Documents that came as ids are taken as `pretokenised.unpacked` leaves them. Documents of
    fewer than two tokens have nothing to predict and are passed over.
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

    taken = [row for row, _ in zip(rows(), range(n_most), strict=False)]
    return build(taken, convention, tokenizer.all_special_ids, score_special=False)
