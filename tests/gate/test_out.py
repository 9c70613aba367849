"""`--sae-out DIR`: everything that a run writes, in one folder."""

import json
from xml.etree import ElementTree as ET

import pytest
from tiny_release import HOOKS

from sae_checks.plugin import outputs

pytest_plugins = ["pytester"]

TIMES_SAES = outputs.times_saes


@pytest.fixture
def out(pytester):
    """The folder of --sae-out in a run of `gate`."""
    return pytester.path / "out"


@pytest.fixture
def plain(pytester, gate, tiny, monkeypatch):
    """`pytest --sae-release ...` with no other option; SAEs are timed as for a user."""
    monkeypatch.setattr(outputs, "times_saes", TIMES_SAES)

    def run(*args):
        return pytester.runpytest_inprocess("-p", "no:hypothesispytest", "-p", "no:cacheprovider", *tiny.args(), *args)

    return run


def files_in(path):
    return {found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()}


def test_a_run_writes_nothing_without_it(pytester, plain):
    """Not a file."""
    assert plain("-k", "sparsity").ret == 0
    assert files_in(pytester.path) == set()


def test_all_files_of_a_run(pytester, plain, out):
    """Record, report, JUnit XML and the time of every SAE; what it says in its head is what is there."""
    run = plain("-k", "sparsity or speed", "--sae-out=new/out")
    assert run.ret == 0
    out = pytester.path / "new/out"
    assert {name for name in files_in(pytester.path) if "report/plots/" not in name} == {
        f"new/out/{name}"
        for name in ("record.json", "junit.xml", "benchmark.json", "report/index.html", "report/summary.md")
    }
    assert "Rounds" not in run.stdout.str(), "nobody asked for the table of times"
    assert len(json.loads((out / "benchmark.json").read_text())["benchmarks"]) == len(HOOKS)
    assert len([*ET.parse(out / "junit.xml").iter("testcase")]) == 2 * len(HOOKS)
    run.stdout.fnmatch_lines(["sae-checks: writes record.json, report/, junit.xml, benchmark.json into new/out"])


def test_nothing_to_time(pytester, plain, out):
    """Where -k leaves nothing to time there is no benchmark.json, and pytest-benchmark does not warn of it."""
    run = plain("-k", "sparsity", "--sae-out=out")
    assert run.ret == 0
    assert not (out / "benchmark.json").exists()
    assert "Not saving anything" not in run.stdout.str() + run.stderr.str()


def test_files_that_the_user_names(pytester, plain, out):
    """--junitxml and --benchmark-json say where these two go; neither is written twice."""
    plain("-k", "sparsity or speed", "--sae-out=out", "--junitxml=mine.xml", "--benchmark-json=mine.json")
    assert {"mine.xml", "mine.json"} <= files_in(pytester.path)
    assert {path.name for path in out.iterdir()} == {"record.json", "report"}


def test_under_xdist_nothing_is_timed(pytester, plain, out):
    """There is no benchmark.json, and the head says why."""
    run = plain("-n2", "-k", "sparsity or speed", "--sae-out=out")
    assert run.ret == 0
    assert {path.name for path in out.iterdir()} == {"record.json", "report", "junit.xml"}
    run.stdout.fnmatch_lines(["sae-checks: writes *; no benchmark.json, since *xdist"])


@pytest.mark.parametrize("args", [["--collect-only"], ["--sae-context=33"]])
def test_a_run_that_measures_nothing_creates_no_folder(pytester, plain, args):
    """Neither a list of tests nor a wrong option writes anything."""
    plain("--sae-out=out", *args)
    assert files_in(pytester.path) == set()
    assert not (pytester.path / "out").exists()


def test_the_report_is_that_of_the_record(gate, out):
    """Of the same results, with every SAE; what was written is said below the table."""
    run = gate("-k", "ce_loss")
    assert run.exit_code == 0, run.text
    page, summary = ((out / "report" / name).read_text(encoding="utf-8") for name in ("index.html", "summary.md"))
    for hook in HOOKS:
        value = run.results[hook, "ce_loss"].judged.value
        assert f"</i> {value:.3g}</b>".replace("-", "\N{MINUS SIGN}") in page
        assert hook in summary
    assert "Checks that were not selected or not reached" in page
    assert f"report: {out / 'report/index.html'}" in run.text


def test_a_report_that_cannot_be_written_leaves_the_run_red(gate, out):
    """A run that cannot write its report is red, although every SAE passed."""
    (out / "report/index.html").mkdir(parents=True)
    run = gate("-k", "ce_loss")
    assert run.exit_code == 1, run.text
    assert set(run.outcomes.values()) == {"passed", "not_measured"}
    assert "the report cannot be written" in run.text


@pytest.mark.parametrize("flag", ["--sae-record", "--sae-report"])
def test_an_option_of_before_names_the_new_one(gate, flag):
    """Exit code 4 with what to type instead, with and without a release; --help does not list it."""
    for options in (None, []):
        run = gate(f"{flag}=x", options=options)
        assert run.exit_code == 4
        assert f"{flag} is gone" in run.text
        assert "try:      --sae-out=" in run.text
    assert flag not in gate("--help", options=[]).text
