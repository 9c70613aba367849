"""summary.md: what GitHub shows of a job, from the same contents."""

import itertools
from dataclasses import replace

import pytest
import report_record
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from strategies import HOSTILE, hostile_names, records

from sae_checks.report import contents, summary, wording

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OURS = ("<details><summary>", "</details>", "<br>")
NAMES = pytest.mark.parametrize(
    "name",
    [*HOSTILE, "a|b", "`code` *x* _y_ ~~z~~", "[a](b)", "![a](b)", "<b>", "\\|", "&amp;", "# h", "https://x.y", "@me"],
)


def markdown_of(run):
    return summary.markdown(contents.build(run))


def rows(text):
    """Cells of every row of every table."""
    found, cells = [], None
    for token in READER.parse(text):
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline" and cells is not None:
            cells.append("".join(child.content for child in token.children))
        elif token.type == "tr_close":
            found.append(cells)
            cells = None
    return found


def test_it_says_why_first():
    """The verdict in the title, then the reasons as a table, the grid behind them."""
    text = markdown_of(report_record.run())
    assert text.startswith("# a-release: ✕ FAILED\n")
    assert text.index("## Why") < text.index("## Every SAE, every check")
    assert ["blocks.1.hook_resid_pre", "CE loss", "✕ failed", "2 nats/token", "[1.99, 2.01]", "≤ 0.3"] in rows(text)
    assert "**✕ failed** 2 (≤ 0.3)" in text


def test_sparklines_mark_the_end_of_the_training_context():
    """Flat within it, high beyond."""
    curve = report_record.curve("ce_increase", "nats/token", lambda p: 0.1 if p < 64 else 5.0)
    within, beyond = summary.sparkline(curve, 64).split("│")
    assert set(within) == {"▁"}
    assert set(beyond) == {"█"}
    assert "│" not in summary.sparkline(curve, None)
    below = report_record.curve("ce_increase", "nats/token", lambda _: -1.0)
    assert set(summary.sparkline(below, None)) == {"·"}


def test_nothing_that_github_does_not_show():
    """No inline SVG, no data in links, no style."""
    text = markdown_of(report_record.run())
    assert not any(word in text for word in ("<svg", "data:", "<style", "<img"))
    assert text.count("<details>") == text.count("</details>") > 3


def test_the_worst_text_is_there():
    """With what cost a nat or more in bold, its spaces outside of it."""
    assert "the **fox**↵ &#60;jumps&#62;&#124;" in markdown_of(report_record.run())


@NAMES
def test_a_name_is_text(name):
    """In a table, a list and a fold: what is read back is the name, and no tag is made of it."""
    escaped = summary.escaped(name)
    for around in ("{}", "| a |\n| --- |\n| {} |", "- **x**: {}"):
        tokens = READER.parse(around.format(f"x {escaped} x"))
        inline = [token for token in tokens if token.type == "inline"][-1]
        assert {child.type for child in inline.children} <= {"text", "text_special", "strong_open", "strong_close"}
        shown = "".join(child.content for child in inline.children)
        assert wording.text(name).strip() in shown
    assert not {"<", ">", "|"} & set(escaped)


@given(hostile_names | st.text(alphabet="|`*_[]()<>&~#$@:\\! aw.-", max_size=30))
def test_any_name_is_text(name):
    """Whatever its characters."""
    inline = READER.parse(f"| a |\n| --- |\n| x {summary.escaped(name)} x |")
    cells = [token for token in inline if token.type == "inline"]
    assert len(cells) == 2
    shown = "".join(child.content for child in cells[1].children)
    assert shown == f"x {wording.text(name)} x"


@settings(max_examples=60)
@given(records())
def test_any_record_is_a_summary(run):
    """Every row of every table has as many cells as its head, and no tag is not ours."""
    text = markdown_of(run)
    text.encode("utf-8")
    rest = text
    for tag in (*OURS, "</summary>"):
        rest = rest.replace(tag, "")
    assert "<" not in rest
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        if line.startswith("| ") and below.startswith("| "):
            assert line.count("|") == below.count("|")


def test_too_much_is_cut_from_the_end():
    """Below GitHub's bound, whole sections, and the last line says so."""
    run = report_record.run(2)
    long = [replace(r, reason="x" * 1900 + "\n" + "y" * 1900, outcome="failed") for r in run.results] * 300
    text = markdown_of(replace(run, results=tuple(long)))
    assert len(text.encode()) <= summary.N_BYTES_MOST
    assert text.startswith("# a-release")
    assert text.rstrip().endswith("have the rest.*")
    assert text.count("<details>") == text.count("</details>")
