"""Texts: files, datasets, tokens."""

from __future__ import annotations

from sae_checks.errors.exceptions import MeasuringError, UsageError
from sae_checks.errors.wording import message, shown


def bad_corpus(flag: str, path: str, problem: str, expected: str) -> UsageError:
    return UsageError(
        message(
            f"{flag} {shown(path)}: {problem}",
            expected=expected,
            got=problem,
            attempt=f"{flag}=FILE of that form, or a Hub dataset org/name",
        )
    )


def text_not_given(flag: str, name: str, problem: str) -> MeasuringError:
    """*problem*: the message of the Hub's error."""
    what, *others = problem.split("\n")
    got = [line.partition("got:")[2].strip() for line in others if line.startswith("  got:")]
    otherwise = "" if flag == "--sae-corpus" else f"; or {shown(flag)}=none, which leaves its checks out"
    return MeasuringError(
        message(
            f"the text of this check is missing: {shown(what, n_most=300)}",
            expected=f"the dataset {shown(name)}, from the Hub",
            got=shown(", ".join(got) or what, n_most=300),
            attempt=f"{flag}=FILE{otherwise}",
        )
    )


def dataset_not_read(flag: str, source: str, problem: str) -> MeasuringError:
    return MeasuringError(
        message(
            f"{flag}: the dataset {shown(source)} cannot be read",
            expected=f"org/name[@revision][:config][:split], whose rows have the columns of {flag}   (pytest --help)",
            got=shown(problem, n_most=300),
            attempt=f"{flag}=FILE, or another dataset",
        )
    )


def other_tokenizer(flag: str, source: str, problem: str) -> MeasuringError:
    return MeasuringError(
        message(
            f"{flag}: the token ids of {shown(source)} come from another tokenizer than the model's",
            expected="ids of the model's own tokenizer; with others the loss means nothing",
            got=shown(problem, n_most=300),
            attempt=f"{flag}=FILE with plain text, or with ids of this tokenizer",
        )
    )


def packed_unmarked(flag: str, source: str) -> MeasuringError:
    return MeasuringError(
        message(
            f"{flag}: the rows of {shown(source)} hold several documents each, with nothing between them",
            expected="one document per row, or BOS or EOS between documents",
            got="documents that are concatenated without BOS or EOS   (its sae_lens.json)",
            attempt=f"{flag}=FILE with plain text",
        )
    )


def no_answer_tokens(item: int, n_target: int, n_context: int) -> MeasuringError:
    return MeasuringError(
        message(
            f"--sae-lambada: the last word of passage {item} cannot be scored",
            expected=f"at least one token of its own, and fewer than the context of {n_context}",
            got=f"{n_target} tokens",
            attempt=f"--sae-lambada=FILE without passage {item}",
        )
    )


def query_too_long(item: int, n_query: int, n_context: int) -> MeasuringError:
    return MeasuringError(
        message(
            f"--sae-cbt: query {item} is longer than the context",
            expected=f"fewer than {n_context} tokens: the passage before it can be cut, the query cannot",
            got=f"{n_query} tokens",
            attempt=f"--sae-cbt=FILE without query {item}",
        )
    )


def golden_not_scored(prompt: str, answer: str, problem: str) -> MeasuringError:
    return MeasuringError(
        message(
            f"the answer {shown(answer)!r} to the golden prompt {shown(prompt)!r} cannot be scored",
            expected="tokens of its own after those of the prompt, and together fewer than the model's context",
            got=problem,
            attempt="--sae-thresholds=FILE in which a space at the end of the prompt stands before the answer instead",
        )
    )


def nothing_to_score(flag: str, path: str) -> MeasuringError:
    return MeasuringError(
        message(
            f"{flag} {shown(path)}: no text is left to score after tokenising",
            expected="documents of at least two tokens that the tokenizer knows",
            got="none",
            attempt=f"{flag}=FILE with longer documents",
        )
    )


def too_few_to_decide(flag: str, source: str, expected: str, got: str, attempt: str) -> UsageError:
    return UsageError(
        message(
            f"{flag} {shown(source)}: too little for any check to pass", expected=expected, got=got, attempt=attempt
        )
    )
