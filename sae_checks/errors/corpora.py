"""Texts: files, datasets, tokens."""

from __future__ import annotations

from sae_checks.errors.exceptions import MeasuringError, UsageError
from sae_checks.errors.wording import said, shown


def bad_corpus(flag: str, path: str, problem: str, expected: str) -> UsageError:
    return UsageError(
        said(
            f"{flag} {shown(path)}: {problem}",
            expected=expected,
            got=problem,
            attempt=f"{flag} with a file of that form",
        )
    )


def dataset_not_read(flag: str, source: str, problem: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag}: the dataset {shown(source)} cannot be read",
            expected="parquet or JSON of the form in the flag's help, named org/name[@revision][:config][:split]",
            got=shown(problem, n_most=300),
            attempt=f"{flag} with a file, or with another dataset",
        )
    )


def other_tokenizer(flag: str, source: str, problem: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag}: the token ids of {shown(source)} were made by another tokenizer than the model's",
            expected="ids of the model's own tokenizer: those of another give a loss, too, and it means nothing",
            got=shown(problem, n_most=300),
            attempt=f"{flag} with plain text, or with ids of this tokenizer",
        )
    )


def packed_unmarked(flag: str, source: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag}: the rows of {shown(source)} hold several documents each, and nothing tells one from the next",
            expected="one document per row, or BOS or EOS between them",
            got="its sae_lens.json: documents are concatenated, with neither BOS nor EOS as their separator",
            attempt=f"{flag} with plain text",
        )
    )


def no_answer_tokens(item: int, n_target: int, n_context: int) -> MeasuringError:
    return MeasuringError(
        said(
            f"--sae-lambada: the last word of passage {item} cannot be scored",
            expected=f"at least one token of its own, and fewer than the context of {n_context}",
            got=f"{n_target} tokens",
            attempt="remove that passage, or look at the tokenizer",
        )
    )


def query_too_long(item: int, n_query: int, n_context: int) -> MeasuringError:
    return MeasuringError(
        said(
            f"--sae-cbt: query {item} is longer than the context",
            expected=f"fewer than {n_context} tokens, with room for something before it",
            got=f"{n_query} tokens",
            attempt="remove that row; only a passage can be cut, not what is scored",
        )
    )


def golden_not_scored(prompt: str, answer: str, problem: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"the answer {shown(answer)!r} to the golden prompt {shown(prompt)!r} cannot be scored",
            expected="tokens of its own behind those of the prompt, and fewer than the model's context in all",
            got=problem,
            attempt="move a space from the prompt's end to the answer's beginning, or look at the tokenizer",
        )
    )


def nothing_to_score(flag: str, path: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag} {shown(path)}: no text is left to score after tokenising",
            expected="documents of at least two tokens that the tokenizer knows",
            got="none",
            attempt=f"{flag} with longer documents",
        )
    )
