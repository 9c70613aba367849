"""`sae-checks report RECORD`: a folder from a record alone, fast."""

import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
import report_record
from hypothesis import given, settings
from strategies import records

from sae_checks import errors
from sae_checks.commands import main
from sae_checks.record import record
from sae_checks.report import contents, folder


@pytest.fixture
def written(tmp_path):
    """A record on disk."""
    path = tmp_path / "record.json"
    record.write(report_record.run(), path)
    return path


def test_the_whole_folder(written, tmp_path, capsys):
    """Page, summary and the plots across the release; the path is told."""
    out = tmp_path / "a" / "report"
    assert main.main(["report", str(written), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out / 'index.html'}\n"
    assert {path.name for path in out.iterdir()} == {"index.html", "summary.md", "plots"}
    of_checks = ("ce_loss", "lambada", "long_context", "sparsity")
    expected = {
        "l0-ce_increase.svg",
        "l0-explained_variance.svg",
        "stack-0.svg",
        *(f"profile-{check}.svg" for check in of_checks),
    }
    assert {path.name for path in (out / "plots").iterdir()} == expected
    assert (out / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_second_report_leaves_nothing_of_the_first(written, tmp_path):
    """Plots that are no longer drawn go; what is not the report's stays."""
    out = tmp_path / "report"
    assert main.main(["report", str(written), "--out", str(out)]) == 0
    (out / "plots" / "mine.svg").write_text("mine")
    record.write(report_record.run(1, red=()), written)
    assert main.main(["report", str(written), "--out", str(out)]) == 0
    assert {path.name for path in (out / "plots").iterdir()} == {"stack-0.svg", "mine.svg"}


def test_bad_input_is_told(tmp_path, capsys):
    """No file, no record, a folder that cannot be one: exit 4 with the message."""
    path = tmp_path / "record.json"
    assert main.main(["report", str(path)]) == 4
    path.write_text("{}")
    assert main.main(["report", str(path)]) == 4
    assert capsys.readouterr().err.count("is not a run record") == 2
    record.write(report_record.run(), path)
    assert main.main(["report", str(path), "--out", str(path)]) == 4
    assert "the report cannot be written" in capsys.readouterr().err


def test_what_cannot_be_written_is_one_error(tmp_path):
    """Of this package, with the folder's name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UsageError, match="file"):
        folder.write(report_record.run(), tmp_path / "file" / "report")


@settings(max_examples=10)
@given(records())
def test_any_plot_is_a_file(tmp_path_factory, run):
    """Well-formed XML with a title, named by plain letters, whatever an SAE calls itself."""
    plots = tmp_path_factory.mktemp("plots")
    found = contents.build(run)
    folder.write_plots(found, plots)
    assert len(list(plots.iterdir())) == len((*found.scatters, *found.profiles, *found.stacked))
    for path in plots.iterdir():
        assert path.name.isascii()
        assert ET.parse(path).getroot().find("{http://www.w3.org/2000/svg}title").text


@pytest.mark.slow
def test_it_imports_nothing_heavy(written, tmp_path):
    """A report needs no torch and no SAE Lens; no matplotlib."""
    script = """
import sys
from sae_checks.commands import main as cli
assert cli.main(sys.argv[1:]) == 0
heavy = {"torch", "sae_lens", "transformers", "transformer_lens", "matplotlib", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    arguments = ["report", str(written), "--out", str(tmp_path / "report")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
