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


def test_it_says_what_is_wrong_first():
    """The verdict in the title, the diagnosis, the red checks with value and limit; then a row per SAE."""
    text = markdown_of(report_record.many(6))
    assert text.startswith("# a-release: ✕ FAILED\n")
    assert text.index("## What is wrong") < text.index("## Against the baseline") < text.index("## SAEs")
    assert "- **blocks.2.hook_resid_post**: explained variance 0.97 -&#62; 0.45, the reconstruction is 1.6" in text
    assert "  - CE loss ✕ **5.05** (≤ 0.3)" in text
    assert "4 of 24 comparisons are worse or undecided." in text
    assert rows(text)[1] == ["blocks.2.hook_resid_post", "13", "0.985", "5.05", "✕ failed"]


@pytest.mark.parametrize("every", [1, 6])
@pytest.mark.parametrize("n_saes", [26, 200])
def test_it_is_short(n_saes, every):
    """At most 60 lines, whatever is red, and it says what it leaves out."""
    text = markdown_of(report_record.many(n_saes, every=every))
    assert len(text.splitlines()) <= 60
    assert f"and {n_saes - summary.N_ROWS} more SAEs" in text


def test_a_green_run_says_so():
    text = markdown_of(report_record.run(red=()))
    assert text.startswith("# a-release: ✓ PASSED\n")
    assert "What is wrong" not in text


def test_what_is_undecided_is_named():
    run = report_record.run(red=())
    first, *rest = run.results
    text = markdown_of(replace(run, results=(replace(first, outcome="inconclusive"), *rest)))
    assert text.startswith("# a-release: ? NOT DECIDED\n")
    assert "Undecided: 1 checks of blocks.0.hook_resid_pre." in text


def test_nothing_that_github_does_not_show():
    """No inline SVG, no data in links, no style."""
    text = markdown_of(report_record.run())
    assert not any(word in text for word in ("<svg", "data:", "<style", "<img"))


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
    """Every row of every table has as many cells as its head, and there is no tag."""
    text = markdown_of(run)
    text.encode("utf-8")
    assert "<" not in text
    assert len(text.splitlines()) <= 60
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        if line.startswith("| ") and below.startswith("| "):
            assert line.count("|") == below.count("|")
