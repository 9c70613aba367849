"""Held-out text: one sequence per document, from its beginning."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.corpora.copies import SeenTexts, beginning, find
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
    one sequence would change the loss. Documents of fewer than two tokens are skipped, since nothing can be predicted,
    and so are copies of others (see `copies`): of several the first of the file is taken.

    Args:
        documents: rows of the corpus; token ids as `pretokenised.unpacked` returns them.
        tokenizer: the model's.
        convention: how text becomes tokens.
        bos: token before every sequence; None: no such token.
        max_rows: number of documents to take.
        seed: of the order.
    """
    texts = [identity(document) for document in documents]
    lead = [] if bos is None else [bos]
    n_room = convention.n_context_tokens - len(lead)

    def encoded(index: int) -> list[int]:
        document = documents[index]
        return encode(tokenizer, document) if isinstance(document, str) else list(document.ids)

    copies = find([beginning(text) for text in texts], lambda index: encoded(index)[:n_room], SeenTexts)
    n_copies, seen = len(copies), SeenTexts()
    rows: list[TokenRow] = []
    for index in seeded_order(texts, seed):
        if index in copies or len(ids := encoded(index)) < 2:
            continue
        if len(rows) == max_rows:
            break
        kept = ids[:n_room]
        if not seen.add(kept):  # WHY: `find` sees only copies that begin alike
            n_copies += 1
            continue
        rows.append(TokenRow(row=index, tokens=[*lead, *kept], n_given=1, was_cut=len(kept) < len(ids)))
    return build(rows, convention, tokenizer.all_special_ids, score_special=False, n_copies=n_copies)
