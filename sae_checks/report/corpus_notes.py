"""What a run says of its texts: how many copies were left out, and what makes a text a poor exam."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sae_checks.provenance import CorpusFacts
from sae_checks.record.results import Result
from sae_checks.report import wording
from sae_checks.report.terminal_tables import Line, wrapped

_ITEMS = {"lambada": ("passage", "passages"), "cbt": ("query", "queries")}
_DOCUMENTS = ("document", "documents")


def of_corpus(corpus: CorpusFacts) -> Iterator[str]:
    """Yield a sentence for the copies of *corpus*, and one for each warning."""
    one, several = _ITEMS.get(corpus.kind, _DOCUMENTS)
    if corpus.n_copies == 1:
        yield f"1 {one} left out, since it repeats another"
    elif corpus.n_copies:
        yield f"{corpus.n_copies} {several} left out, since they repeat others"
    yield from corpus.warnings


def terminal_lines(results: Iterable[Result], n_columns: int) -> Iterator[Line]:
    """Yield the lines of all corpora of *results*, each once; no line is longer than *n_columns*."""
    corpora = (result.provenance.corpus for result in results if result.provenance is not None)
    notes = (f"{corpus.kind}: {wording.text(note)}" for corpus in corpora for note in of_corpus(corpus))
    for note in dict.fromkeys(notes):
        yield from wrapped(note, n_columns, indent="  ", tone="warn")
