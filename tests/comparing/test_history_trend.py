"""What is told of a line, in text and on the page."""

import base64
import hashlib
import math
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import builders
import histories
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import HOSTILE

from sae_checks.comparing.history import drawing, moves, page, series, tables, trend
from sae_checks.comparing.history.runs import Run
from sae_checks.errors import shown
from sae_checks.judging.accepted_shifts import AcceptedShift


def shift(day, reason="looked at", sae="*"):
    return AcceptedShift(
        release="demo",
        sae=sae,
        measure="ce_increase",
        since=histories.START + timedelta(days=day),
        reason=reason,
        where="own.toml line 3",
    )


def records(means, **changes):
    """One run a day, whose loss increase is about *means*."""
    sound = [histories.ce_loss(histories.values(mean, seed=day), **changes) for day, mean in enumerate(means)]
    return [histories.run(result, day=day) for day, result in enumerate(sound)]


def trends(of, shifts=(), release="demo"):
    found = [Run(run_id=f"run{i}", record=record) for i, record in enumerate(of)]
    return trend.trends(series.lines(found), release, shifts)


def told(of, shifts=()):
    (only,) = trends(of, shifts)
    return [(note.kind, note.text) for note in only.notes]


def test_a_line_of_one_series_has_nothing_to_say():
    """No note, whatever its values."""
    assert told(records([0.1] * 6 + [0.3] * 6)) == []


def test_an_accepted_shift_is_told_with_its_reason():
    """At the first run that started since then."""
    (only,) = trends(records([0.1] * 9 + [0.3] * 9), [shift(9)])
    assert [(note.kind, note.text) for note in only.notes] == [
        ("accepted", "from run9 (2026-01-14) on: looked at (own.toml line 3)")
    ]
    (part,) = only.parts
    assert [at for at, _ in part.accepted] == [9]


def test_a_shift_of_something_else_is_not_told():
    """Of another SAE, or before all runs, or after them."""
    of = records([0.1] * 6 + [0.3] * 6)
    for other in (shift(6, sae="b"), shift(-1), shift(99)):
        assert told(of, [other]) == []


def test_a_new_series_is_said():
    """With what has changed; each series has a line of the table."""
    others = records([0.1] * 20, corpus={"prepend_bos": False})[10:]
    (only,) = trends(records([0.1] * 10) + others)
    assert len(only.parts) == 2
    (note,) = only.notes
    assert note.text == "a new series starts with run10 (2026-01-15): BOS before every sequence: True -> False"
    assert len(list(tables.trend_table([only]))) == 5


def test_the_table_is_aligned():
    """One line per series, and below them every note."""
    head, sae, row, note = tables.trend_table(trends(records([0.1] * 6 + [0.3] * 6), [shift(6)]))
    assert sae == "a"
    assert row.index("ce_increase") == head.index("measure")
    assert "<= 0.3" in row
    assert note.startswith("accepted: ce_increase of a: from run6")


class Parsed(HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def drawn(of, shifts=(), release="demo", place="/a/history", n_unreadable=0):
    return page.html(trends(of, shifts, release), release, place, n_unreadable)


def test_the_page_is_one_file_that_fetches_and_runs_nothing():
    """A policy that allows its own style alone, and nothing in it that would need more."""
    text = drawn(records([0.1] * 10 + [0.3]), [shift(4)])
    found = Parsed(text)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(found.tags)
    assert [a for a in found.attributes if a[1] in ("style", "src") or a[1].startswith("on")] == []
    assert all(value.startswith("#") for _, name, value in found.attributes if name == "href")
    assert "url(" not in style
    assert "prefers-color-scheme: dark" in style


def test_under_every_plot_is_a_table_with_every_value():
    """One row per run; the plot has a title; the ids of the runs are in a table of their own."""
    of = records([0.1] * 5 + [0.2] * 5)
    text = drawn(of)
    found = Parsed(text)
    assert (found.tags.count("figure"), found.tags.count("table")) == (1, 3)
    assert {f"run{i}" for i in range(10)} <= set(found.texts)
    for name in ("title", "caption"):
        assert name in found.tags
    for record in of:
        assert f"{record.results[0].estimates[1].value:.4g}" in found.texts


def test_the_page_says_what_the_table_says():
    """Notes, unreadable files, and marks by shape, not colour alone."""
    text = drawn(records([0.1] * 10 + [0.3]), [shift(4)], n_unreadable=2)
    assert "ce_increase of a: from run4" in text
    assert "2 files of this history could not be read" in text
    found = Parsed(text)
    references = [value.split() for _, name, value in found.attributes if name == "aria-labelledby"]
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {reference for names in references for reference in names} <= set(ids)
    links = {value.removeprefix("#") for _, name, value in found.attributes if name == "href"}
    assert links <= set(ids)
    failed = [replace(histories.ce_loss(histories.values(0.4)), outcome="failed")]
    assert ("path", "class", "mark failed") in Parsed(drawn([histories.run(*failed)])).attributes


@pytest.mark.parametrize(
    "name", [*HOSTILE, "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "</style>"]
)
def test_names_are_escaped(name):
    """Of releases, SAEs, places, reasons and devices: they come from files that strangers wrote."""
    result = histories.ce_loss(sae_id=name, model={"device": name})
    of = [replace(histories.run(result, day=day, release=name), release=replace(
        histories.run().release, name=name, revision=name)) for day in range(4)]  # fmt: skip
    shifts = [replace(shift(2, reason=name), release="*")]
    found = Parsed(drawn(of, shifts, release=name, place=name))
    assert not {"script", "img"} & set(found.tags)
    assert found.tags.count("style") == 1
    assert shown(name) in "".join(found.texts)


def test_a_page_of_one_run_and_of_none():
    """Flat scales and empty lists are drawn, too."""
    Parsed(drawn(records([0.1])))
    Parsed(drawn([]))
    flat = [histories.run(histories.counted(), day=day) for day in range(9)]
    text = drawn(flat)
    Parsed(text)
    assert "nan" not in text


WORSE = {(2, 0): (9, 2.5), (10, 3): (6, 1.5)}


def test_the_table_ends_with_what_has_become_worse():
    """The earliest first, in lines of 80 columns; SAEs as people count."""
    lines = list(tables.trend_table(trends(histories.release(12, 16, worse=WORSE))))
    saes = [line.split(".")[1] for line in lines if line.startswith("blocks")]
    assert saes == [str(i) for i in range(12)]
    assert [line.split(".")[1] for line in lines[-2:]] == ["10", "2"]
    assert lines[-1].startswith("worse: blocks.2.hook_resid_pre: ")
    assert max(map(len, lines)) <= 80 or max(lines, key=len).startswith("note")


def moved(of, shifts=()):
    return [(move.line.sae_id, move.since.run_id, move.best.value) for move in moves.moves(trends(of, shifts))]


def test_what_has_become_worse_is_named_from_its_first_run_on():
    """The earliest first, whatever the noise of everything else; an SAE that is better is not in it."""
    found = moved(histories.release(12, 16, worse={**WORSE, (0, 0): (5, 0.3)}))
    assert [(sae_id, since) for sae_id, since, _ in found] == [
        ("blocks.10.hook_resid_pre", "run6"),
        ("blocks.2.hook_resid_pre", "run9"),
    ]


def test_noise_is_nothing_that_has_become_worse():
    """Nor is a run that was worse and is over, nor a change that somebody has accepted."""
    assert moved(histories.release(6, 30)) == []
    assert moved(records([0.1] * 5 + [0.2] * 5 + [0.1])) == []
    assert moved(records([0.1] * 5 + [0.2] * 5))
    assert moved(records([0.1] * 5 + [0.2] * 5), [shift(5)]) == []
    assert moved(records([0.1])) == []


def in_limits(kind, floor, values):
    limit = builders.limit("ce_loss", "ce_increase", kind, 2.0)
    limit = replace(limit, floor=floor)
    results = [replace(histories.ce_loss(histories.values(v)), limit=limit, judged=None) for v in values]
    return [histories.run(result, day=day) for day, result in enumerate(results)]


def test_the_bad_direction_is_that_of_the_limit():
    """Down for a least value; towards the nearer end of a range."""
    assert moved(in_limits("min", None, [3, 3, 2.5]))
    assert not moved(in_limits("min", None, [2.5, 3, 3]))
    assert moved(in_limits("max", 0.5, [1.3, 1.3, 1.9]))
    assert moved(in_limits("max", 0.5, [1.2, 1.2, 0.6]))
    assert not moved(in_limits("max", 0.5, [1.9, 1.9, 1.3]))


def test_the_page_begins_with_what_has_become_worse_and_a_cell_per_measure():
    """Rows in natural order; the marked cells are those that the list above names."""
    text = drawn(histories.release(12, 16, worse=WORSE))
    assert "Worse in 2 of 12" in text
    assert text.index("blocks.10.hook_resid_pre") < text.index("blocks.2.hook_resid_pre")
    overview = text[text.index('<table class="overview">') : text.index("</table>")]
    rows = re.findall(r"blocks\.(\d+)", overview)
    assert rows == [str(i) for i in range(12)]
    assert overview.count("<svg") == 12 * 12
    assert len(re.findall(r'class="worse[ "]', overview)) == 2


def test_a_note_is_told_once_however_many_lines_it_is_on():
    """With how many those are."""
    of = trends(histories.release(6, 8))
    ((note, places),) = trend.notes_by_text(of)
    assert places == "12 measures of 6 SAEs"
    assert note.text.endswith("device: cpu -> cuda")
    assert sum(note.text in line for line in tables.trend_table(of)) == 1


def test_a_page_of_26_saes_and_60_runs_is_small():
    """Under 1.5 MB."""
    assert len(drawn(histories.release(26, 60, worse=WORSE)).encode()) < 1_500_000


@given(low=st.floats(-1e6, 1e6), size=st.floats(1e-6, 1e6))
def test_ticks_are_round_and_on_the_axis(low, size):
    """Three to eight of them."""
    scale = drawing.Scale.around([low, low + size], bottom=100, top=0)
    assert 3 <= len(scale.ticks) <= 8
    step = scale.ticks[1] - scale.ticks[0]
    digit = step / 10 ** math.floor(math.log10(step * 1.0001))
    assert round(digit, 3) in (1, 2, 5)
    assert all(0 <= scale.y(tick) <= 100 for tick in scale.ticks)
