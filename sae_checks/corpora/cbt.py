"""Children's Book Test: which option fills a query's gap, ranked by the probability of the filled query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sae_checks import errors
from sae_checks.corpora.copies import SeenItems, end, find
from sae_checks.corpora.rows import GAP, Query, identity
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer, TokenRow, build, encode, seeded_order
from sae_checks.corpora.treebank import detokenise
from sae_checks.losses import ChoiceText

N_CHARACTERS_SHOWN = 200
"""length of the passage's end that reports show."""


def tokenise(
    queries: Sequence[Query],
    tokenizer: Tokenizer,
    convention: Convention,
    *,
    bos: int | None,
    max_rows: int,
    seed: int,
) -> Sequences:
    """
    Tokenise at most *max_rows* queries in seeded order: for each query one sequence per option, the right one first.

    A sequence is the passage and the query filled with one option. The tokens of the whole query are scored, so that
    options are ranked by p(query | passage), which includes what follows the gap. All options of a query follow the
    same tokens: a long passage loses its beginning, after the BOS, for all of them alike. Of queries with the same
    passage, so far as it is kept, question and answer the first of the file is taken.

    Args:
        queries: rows of the corpus.
        tokenizer: the model's.
        convention: how text becomes tokens.
        bos: token before every sequence; None: no such token.
        max_rows: number of queries to take.
        seed: of the order.

    Raises:
        MeasuringError: a query does not fit into the context.

    Source: Hill et al., The Goldilocks Principle (arXiv 1511.02301), section 4.4; GPT-2's paper ranks likewise.
    """
    lead = [] if bos is None else [bos]

    def cut(index: int) -> tuple[list[int], list[list[int]], bool]:
        """The end of the passage that fits before all options, the filled queries, and whether more was there."""
        passage, filled = _encoded(queries[index], tokenizer)
        n_room = convention.n_context_tokens - len(lead) - max(map(len, filled))
        kept = passage[max(0, len(passage) - max(0, n_room)) :]
        return kept, filled, len(kept) < len(passage)

    def row_of(index: int) -> list[int]:
        kept, filled, _ = cut(index)
        return [len(filled[0]), *kept, *filled[0]]

    keys = [(end(_passage(query)), query.question, query.answer) for query in queries]
    copies = find(keys, row_of, SeenItems)

    def rows() -> Iterator[TokenRow]:
        order = seeded_order([identity(query) for query in queries], seed)
        for index in [i for i in order if i not in copies][:max_rows]:
            kept, filled, was_cut = cut(index)
            given, n_query = [*lead, *kept], max(map(len, filled))
            if not given or len(lead) + n_query > convention.n_context_tokens:
                raise errors.query_too_long(index, n_query, convention.n_context_tokens)
            for ids in filled:
                yield TokenRow(row=index, tokens=[*given, *ids], n_given=len(given), was_cut=was_cut)

    return build(rows(), convention, tokenizer.all_special_ids, score_special=True, n_copies=len(copies))


def choice_texts(queries: Sequence[Query], chosen: Iterable[int]) -> tuple[ChoiceText, ...]:
    """Text of the *queries* with the indices *chosen*, detokenised; their options in the order of `tokenise`."""
    return tuple(
        ChoiceText(
            query=index,
            passage_end=_passage(queries[index])[-N_CHARACTERS_SHOWN:],
            question=detokenise(queries[index].question),
            options=_options(queries[index]),
        )
        for index in chosen
    )


def _passage(query: Query) -> str:
    return " ".join(map(detokenise, query.sentences))


def _options(query: Query) -> tuple[str, ...]:
    """The options, the right one first."""
    return (query.answer, *(option for option in query.options if option != query.answer))


def _encoded(query: Query, tokenizer: Tokenizer) -> tuple[list[int], list[list[int]]]:
    """
    Tokens of the passage, and of the query filled with each option.

    TRAP: passage and query encoded apart could give other tokens than encoded together. So every whole text is encoded
    once, and split after the tokens that it shares with the passage alone and with the texts of all other options.
    """
    passage = _passage(query)
    texts = [f"{passage} {detokenise(query.question.replace(GAP, option))}".strip() for option in _options(query)]
    whole = [encode(tokenizer, text) for text in texts]
    alone = encode(tokenizer, passage)
    n_shared = next((i for i, ids in enumerate(zip(alone, *whole, strict=False)) if len({*ids}) > 1), None)
    n_passage = min(len(alone), *map(len, whole)) if n_shared is None else n_shared
    return whole[0][:n_passage], [ids[n_passage:] for ids in whole]
