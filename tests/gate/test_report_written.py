"""`--sae-report DIR`: the report of a run, written when the session ends."""

from pathlib import Path

import pytest
from tiny_release import HOOKS

from sae_checks.report import folder

pytest_plugins = ["pytester"]


@pytest.fixture
def where(pytester, monkeypatch):
    """A folder for the report; pictures have their own tests, and take seconds."""
    monkeypatch.setattr(folder, "find_spec", lambda _: None)
    return pytester.path / "report"


def test_the_report_is_that_of_the_record(gate, where):
    """Of the same results, with every SAE; what was written and what was not is told below the table."""
    run = gate("-k", "ce_loss", f"--sae-report={where}")
    assert run.exit_code == 0, run.text
    page, summary = ((where / name).read_text(encoding="utf-8") for name in ("index.html", "summary.md"))
    for hook in HOOKS:
        value = run.results[hook, "ce_loss"].estimates[3].value
        assert f"<b>{value:.3g}</b>".replace("-", "\N{MINUS SIGN}") in page
        assert hook in summary
    assert "Checks that were not selected or not reached" in page
    assert f"report: {where / 'index.html'}" in run.text
    assert "pip install 'sae-checks[report]'" in run.text


def test_a_report_that_cannot_be_written_leaves_the_run_red(gate, where):
    """A run that cannot write its report is red, although every SAE passed."""
    where.mkdir()
    (where / "index.html").mkdir()
    run = gate("-k", "ce_loss", f"--sae-report={where}")
    assert run.exit_code == 1, run.text
    assert set(run.outcomes.values()) == {"passed", "not_measured"}
    assert "the report cannot be written" in run.text


def test_a_place_that_cannot_be_is_refused_at_once(gate, where):
    """A folder that cannot be written is exit code 4, before anything is measured."""
    Path(where).touch()
    run = gate(f"--sae-report={where}")
    assert run.exit_code == 4
    assert not run.record_path.exists()
