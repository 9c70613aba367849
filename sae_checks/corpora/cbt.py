"""Children's Book Test: which of the options fills the gap, by the probability of the whole filled query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sae_checks import errors
from sae_checks.corpora.rows import GAP, Query, identity
from sae_checks.corpora.sequences import Convention, Sequences, Tokenizer, TokenRow, build, encode, seeded_order
from sae_checks.corpora.treebank import detokenise
from sae_checks.losses import ChoiceText

N_CHARACTERS_SHOWN = 200
"""of a passage: enough to see what the choice follows from."""


def tokenise(
    queries: Sequence[Query],
    tokenizer: Tokenizer,
    convention: Convention,
    *,
    bos: int | None,
    n_most: int,
    seed: int,
) -> Sequences:
    """
    At most *n_most* queries in seeded order, each as many sequences in a row as it has options; the first is right.

    A sequence is the passage and the query filled with one option, and the predictions of the query's tokens are
    scored: options are ranked by p(query | passage), not by p(option | what stands before it), since what comes behind
    the gap tells, too. All options of a query stand behind the same tokens: a long passage loses its beginning, after
    the BOS, for all of them alike.

    Raises:
        MeasuringError: a query that fills the context.

    Source: Hill et al., The Goldilocks Principle (arXiv 1511.02301), section 4.4; GPT-2's paper ranks likewise.
    """

    def rows() -> Iterator[TokenRow]:
        for index in seeded_order([identity(query) for query in queries], seed)[:n_most]:
            passage, filled = _encoded(queries[index], tokenizer)
            lead = [] if bos is None else [bos]
            n_query = max(map(len, filled))
            n_room = convention.n_context_tokens - len(lead) - n_query
            kept = passage[max(0, len(passage) - max(0, n_room)) :]
            if n_room < 0 or not (lead or kept):
                raise errors.query_too_long(index, n_query, convention.n_context_tokens)
            given = [*lead, *kept]
            for ids in filled:
                tokens = [*given, *ids]
                yield TokenRow(row=index, tokens=tokens, n_given=len(given), was_cut=len(kept) < len(passage))

    return build(rows(), convention, tokenizer.all_special_ids, score_special=True)


def texts_of(queries: Sequence[Query], chosen: Iterable[int]) -> tuple[ChoiceText, ...]:
    """What those of *queries* say whose indices are *chosen*, written out as they are read; options as measured."""
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
    """The right one first."""
    return (query.answer, *(option for option in query.options if option != query.answer))


def _encoded(query: Query, tokenizer: Tokenizer) -> tuple[list[int], list[list[int]]]:
    """
    Tokens of the passage, and behind it of the query filled with the answer and with every other option.

    Each whole text is encoded once and split where its tokens are still those of the passage alone and of all others:
    encoding the parts could give other tokens.
    """
    passage = _passage(query)
    texts = [f"{passage} {detokenise(query.question.replace(GAP, option))}".strip() for option in _options(query)]
    whole = [encode(tokenizer, text) for text in texts]
    alone = encode(tokenizer, passage)
    n_shared = next((i for i, ids in enumerate(zip(alone, *whole, strict=False)) if len({*ids}) > 1), None)
    n_passage = min(len(alone), *map(len, whole)) if n_shared is None else n_shared
    return whole[0][:n_passage], [ids[n_passage:] for ids in whole]
