"""What the end of a run says of its texts."""

from dataclasses import replace

import report_record

from sae_checks.report import corpus_notes
from sae_checks.report.terminal_tables import text_of


def said(n_columns=80, **of_corpus):
    """The notes of a record whose corpora all have these fields."""
    results = [
        replace(r, provenance=r.provenance and replace(r.provenance, corpus=replace(r.provenance.corpus, **of_corpus)))
        for r in report_record.run().results
    ]
    return [text_of(line) for line in corpus_notes.terminal_lines(results, n_columns)]


def test_nothing_to_say():
    """A text without copies and warnings has no line."""
    assert said() == []


def test_copies_are_counted_once_for_all_checks():
    """By what they are copies of, one or several."""
    assert said(kind="text", n_copies=1) == ["  text: 1 document left out, since it repeats another"]
    assert said(kind="cbt", n_copies=12) == ["  cbt: 12 queries left out, since they repeat others"]


def test_a_warning_fits_the_terminal():
    """Whatever its length and its characters."""
    lines = said(n_columns=40, warnings=("a \x1b[31mlong " + "word " * 20,))
    assert len(lines) > 1
    assert max(map(len, lines)) <= 40
    assert "\x1b" not in "".join(lines)
