"""`sae-checks report RECORD`: a folder from a record alone, fast, with or without matplotlib."""

import subprocess
import sys
from dataclasses import replace

import pytest
import report_record
from hypothesis import given, settings
from strategies import records

from sae_checks import errors
from sae_checks.commands import main
from sae_checks.record import record
from sae_checks.report import contents, folder, png

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def written(tmp_path):
    """A record on disk."""
    path = tmp_path / "record.json"
    record.write(report_record.run(), path)
    return path


def size_of(path):
    """Width and height in a PNG's header."""
    head = path.read_bytes()[:24]
    assert head.startswith(PNG)
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_the_whole_folder(written, tmp_path, capsys):
    """Page, summary and a picture of every SAE and of each thing that the release shows; the path is told."""
    out = tmp_path / "a" / "report"
    assert main.main(["report", str(written), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out / 'index.html'}\n"
    assert {path.name for path in out.iterdir()} == {"index.html", "summary.md", "plots"}
    assert {path.name for path in (out / "plots").iterdir()} == {
        "profiles.png",
        "propagation.png",
        "stacked.png",
        *(f"sae-{i}-blocks.{i}.hook_resid_pre.png" for i in range(3)),
    }
    assert (out / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    for path in (out / "plots").iterdir():
        width, height = size_of(path)
        assert 300 < width < 3000
        assert 200 < height < 3000


def test_a_second_report_leaves_nothing_of_the_first(written, tmp_path):
    """Pictures of SAEs that are no longer there go; what is not the report's stays."""
    out = tmp_path / "report"
    assert main.main(["report", str(written), "--out", str(out)]) == 0
    (out / "mine.txt").write_text("mine")
    record.write(report_record.run(1, red=()), written)
    assert main.main(["report", str(written), "--out", str(out)]) == 0
    assert [path.name for path in (out / "plots").glob("sae-*")] == ["sae-0-blocks.0.hook_resid_pre.png"]
    assert (out / "mine.txt").read_text() == "mine"


def test_without_matplotlib_there_is_all_but_the_pictures(written, tmp_path, capsys, monkeypatch):
    """And what to install is told; a green exit, for nothing that decides is missing."""
    monkeypatch.setattr(folder, "find_spec", lambda _: None)
    out = tmp_path / "report"
    assert main.main(["report", str(written), "--out", str(out)]) == 0
    assert "pip install 'sae-checks[report]'" in capsys.readouterr().out
    assert (out / "index.html").stat().st_size > 10_000
    assert (out / "summary.md").stat().st_size > 1_000
    assert list((out / "plots").iterdir()) == []


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


def test_hostile_names_are_no_paths(tmp_path):
    """Files are named by number and plain letters, whatever an SAE calls itself."""
    run = report_record.run(1, red=())
    names = ("two\nlines", "half of a pair \ud800", "../../up", "/root", "a" * 300)
    for i, name in enumerate(names):
        results = tuple(replace(r, sae_id=name) for r in run.results if r.curves)
        folder.write(replace(run, results=results), tmp_path / str(i))
        (path,) = (tmp_path / str(i) / "plots").iterdir()
        assert path.name.startswith("sae-0-")
        assert path.name.isascii()
        assert len(path.name) < 100
    assert len(list(tmp_path.iterdir())) == len(names)


@settings(max_examples=10)
@given(records())
def test_any_record_can_be_drawn(tmp_path_factory, run):
    """Names and numbers of any kind, without a warning."""
    found = contents.build(run)
    path = tmp_path_factory.mktemp("drawn") / "a.png"
    for drawn in (found.profiles, found.matrices, found.stacked, *(sae.plots for sae in found.saes)):
        if drawn:
            png.write(drawn, run.release.name, path)
            size_of(path)


@pytest.mark.slow
def test_it_imports_nothing_heavy(written, tmp_path):
    """A report needs no torch and no SAE Lens; without pictures no matplotlib."""
    script = """
import sys
from sae_checks.commands import main as cli
from sae_checks.report import folder
folder.find_spec = lambda name: None
assert cli.main(sys.argv[1:]) == 0
heavy = {"torch", "sae_lens", "transformers", "transformer_lens", "matplotlib", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    arguments = ["report", str(written), "--out", str(tmp_path / "report")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
