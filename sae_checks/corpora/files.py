"""Reading and checking corpus files; standard library only, so that a bad file is refused before torch is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sae_checks import errors

_TEXT_FORMS = '.jsonl with {"text": ...} on every line, or .txt with documents apart by blank lines'
_LAMBADA_FORM = '.jsonl with {"text": ...} on every line, each of at least two words apart by spaces'


def read_documents(path: Path) -> tuple[str, ...]:
    """
    The documents of a text corpus, in the file's order.

    Raises:
        UsageError: the file is missing, not of the form, or has no text.
    """
    if path.suffix == ".jsonl":
        documents = tuple(text for _, text in _jsonl(path, "--sae-corpus", _TEXT_FORMS) if text.strip())
    elif path.suffix == ".txt":
        documents = tuple(part.strip() for part in _blank_line_parts(_read(path, "--sae-corpus", _TEXT_FORMS)))
    else:
        raise errors.bad_corpus("--sae-corpus", str(path), f"unknown form {path.suffix!r}", _TEXT_FORMS)
    if not documents:
        raise errors.bad_corpus("--sae-corpus", str(path), "there is no text in it", _TEXT_FORMS)
    return documents


def read_passages(path: Path) -> tuple[str, ...]:
    """
    The passages of a Lambada file, in its order; the last space-separated word of each is the answer.

    Raises:
        UsageError: the file is missing, not of the form, or a passage has no last word.
    """
    if path.suffix != ".jsonl":
        raise errors.bad_corpus("--sae-lambada", str(path), f"unknown form {path.suffix!r}", _LAMBADA_FORM)
    passages = []
    for line, text in _jsonl(path, "--sae-lambada", _LAMBADA_FORM):
        if not has_last_word(text):
            raise errors.bad_corpus("--sae-lambada", str(path), f"line {line} has no last word", _LAMBADA_FORM)
        passages.append(text)
    if not passages:
        raise errors.bad_corpus("--sae-lambada", str(path), "there is no passage in it", _LAMBADA_FORM)
    return tuple(passages)


def has_last_word(passage: str) -> bool:
    """Whether *passage* is at least two words apart by spaces and ends in the second of them."""
    context, _, word = passage.rpartition(" ")
    return bool(context.strip() and word.strip())


def _read(path: Path, flag: str, form: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise errors.bad_corpus(flag, str(path), f"cannot be read ({errors.shown(problem)})", form) from None


def _jsonl(path: Path, flag: str, form: str) -> Iterator[tuple[int, str]]:
    # split("\n"), not splitlines(): JSON strings may hold U+2028 and other separators as they are
    for number, line in enumerate(_read(path, flag, form).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
            text.encode()  # half an emoji is a string to JSON and to nobody else
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise errors.bad_corpus(flag, str(path), f'line {number} is not {{"text": ...}}', form)
        yield number, text


def _blank_line_parts(text: str) -> Iterator[str]:
    part: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            part.append(line)
        elif part:
            yield "\n".join(part)
            part = []
