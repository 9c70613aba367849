"""The block of Markdown for a release's README."""

import shlex
from dataclasses import asdict, replace
from xml.etree import ElementTree as ET

import pytest
import report_record
from hypothesis import given, settings
from markdown_it import MarkdownIt
from strategies import HOSTILE, records

from sae_checks import errors
from sae_checks.plan import flags, options
from sae_checks.report import command, model_card, tradeoff

READER = MarkdownIt("commonmark", {"html": True}).enable("table")


def test_the_block_has_verdict_table_plots_and_command():
    text = model_card.model_card(report_record.run())
    for words in (
        "## Checked with sae-checks: FAILED",
        "![sae-checks: FAILED](sae-checks-badge.svg)",
        "| blocks.1.hook_resid_pre | 12 | 0.95 (≥ 0.9) | 2 (≤ 0.3) | ✕ failed |",
        "](l0-ce_increase.svg)",
        "pytest --sae-release=a-release",
        "1 of 3 SAEs not within limits",
    ):
        assert words in text, words


def full(**changes):
    run = report_record.run(**changes)
    return replace(run, options=(*run.options, ("profile", "full")))


def test_a_run_that_stopped_early_gives_no_card(tmp_path):
    """Its values are biased; the message has the command of a full run."""
    with pytest.raises(errors.UsageError, match=r"(?s)expected: .*--sae-profile=full.*try: .*--sae-profile=full"):
        model_card.write(report_record.run(), tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_a_card_has_what_all_sequences_gave():
    """The verdict may have fallen earlier, on a value that is biased."""
    run = full()
    result = next(r for r in run.results if r.check == "ce_loss" and r.judged is not None)
    early = replace(result, judged=replace(result.judged, value=0.0123, n=8, n_most=64))
    run = replace(run, results=tuple(early if r is result else r for r in run.results))
    assert "0.0123" not in model_card.model_card(run)
    assert next(row for row in tradeoff.rows(run) if row.sae_id == result.sae_id).ce_increase == 0.0123


def test_every_file_that_the_block_names_is_beside_it(tmp_path):
    model_card.write(full(), tmp_path)
    text = (tmp_path / model_card.NAME).read_text(encoding="utf-8")
    images = [i.attrs["src"] for t in READER.parse(text) for i in t.children or () if i.type == "image"]
    assert len(images) == 3
    for name in images:
        assert ET.parse(tmp_path / name).getroot().find("{http://www.w3.org/2000/svg}title").text


@pytest.mark.parametrize("name", [*HOSTILE, "`` ` ```", "<script>x</script>"])
def test_a_name_is_text(name):
    text = model_card.model_card(report_record.run(release=name))
    types = {token.type for token in READER.parse(text)}
    assert not {"html_block"} & types
    assert sum(token.type == "fence" for token in READER.parse(text)) == 1


@settings(max_examples=20)
@given(records())
def test_any_record_is_a_block(run):
    model_card.model_card(run).encode()
    ET.fromstring(model_card.badge(run))


GIVEN = {
    "sae_release": "a b",
    "sae_id": ["x*", "y z"],
    "sae_profile": "smoke",
    "sae_sequences": "32",
    "sae_special_tokens": "replace,bos",
    "sae_allow_pickle": "yes",
    "sae_corpus": "text.jsonl",
    "sae_memory": "2.5",
}


@pytest.mark.parametrize("given", [{"sae_release": "demo"}, GIVEN])
def test_the_command_asks_for_the_same(given):
    """What is typed is parsed into the options of the record; the defaults are not typed."""
    asked = options.parse({**flags.defaults(), **given})
    plain = tuple((k, " ".join(v) if isinstance(v, tuple) else v) for k, v in asdict(asked).items())
    words = shlex.split(command.typed(replace(report_record.run(), options=plain)))
    assert words[0] == "pytest"
    assert {word.partition("=")[0] for word in words[1:]} == {f"--{key.replace('_', '-')}" for key in given}
    assert "--sae-release=" + given["sae_release"] in words


def test_the_row_of_an_sae_is_what_was_judged():
    """The value of the limited measure is the decision's; L0 is an estimate."""
    first, *_ = tradeoff.rows(report_record.run())
    assert (first.layer, first.architecture, first.l0, first.ce_increase) == (0, "standard", 12.0, 0.05)
    assert first.outcome == "passed"
