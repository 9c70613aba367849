"""--sae-history: the record of every run is kept, and a record that is not says so without a verdict changing."""

import json
import re

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_baseline_run import spoil
from tiny_release import HOOKS, copy_saes

from sae_checks.comparing.history import runs, store
from sae_checks.plugin.reporting import EXIT_NOT_IN_HISTORY
from sae_checks.record import record

pytest_plugins = ["pytester"]

FEW = ("-k", "ce_loss and not stacked and not no_regression")


class Closed(MemoryFileSystem):
    """A file system that opens, and takes nothing."""

    protocol = "closed"
    cachable = False

    def pipe_file(self, *_, **__):
        raise PermissionError("no leave to write")


@pytest.fixture
def closed():
    fsspec.register_implementation("closed", Closed, clobber=True)
    return "closed://history"


def kept(url):
    where = store.open_history(str(url))
    return [record.loads(store.read_text(entry, where), entry.name) for entry in store.entries(where)]


def test_every_run_is_kept(gate, tmp_path):
    """Two runs, two files; each is the record that --sae-out has, with the exit status of the run."""
    history = tmp_path / "history"
    first = gate(*FEW, f"--sae-history={history}")
    (only,) = kept(history)
    assert (first.exit_code, only.exit_status) == (0, 0), first.text
    assert only == first.record
    assert re.search(r"run kept: \d{8}T\d{6}Z_[0-9a-f]{16} in ", first.text)
    second = gate(*FEW, f"--sae-history={history}")
    assert len(kept(history)) == 2
    assert second.record in kept(history)
    heads, unreadable = runs.summaries(store.open_history(str(history)), only.release.name)
    assert (len(heads), unreadable) == (2, ())


def test_a_red_run_is_kept_as_red(gate, tiny, tmp_path):
    """The record of a red run has its exit status, and the history does not change it."""
    saes = copy_saes(tiny, tmp_path / "saes")
    spoil(saes, 0.0)
    run = gate(*FEW, f"--sae-history={tmp_path / 'history'}", saes=saes)
    (only,) = kept(tmp_path / "history")
    assert run.exit_code == only.exit_status == 1, run.text


def test_a_record_that_is_not_kept_is_told_and_no_verdict_changes(gate, closed):
    """A green run exits with 6, which is no status of pytest; all tests have passed."""
    run = gate(*FEW, f"--sae-history={closed}")
    assert run.exit_code == EXIT_NOT_IN_HISTORY == 6
    assert run.counts["passed"] == len(HOOKS)
    assert "failed" not in run.counts
    assert "the record of this run is not in the history closed://history" in run.text
    assert "no leave to write" in run.text
    assert "run kept" not in run.text
    assert any(line.startswith("tiny-saes: PASSED   3 SAEs") for line in run.lines)
    assert run.record.exit_status == 0  # of the verdicts, as the record of --sae-out has it
    assert {run.outcomes[hook, "ce_loss"] for hook in HOOKS} == {"passed"}


def test_a_red_run_stays_red_where_nothing_is_kept(gate, tiny, tmp_path, closed):
    """A red run stays exit code 1 when the history cannot be written."""
    saes = copy_saes(tiny, tmp_path / "saes")
    spoil(saes, 0.0)
    run = gate(*FEW, f"--sae-history={closed}", saes=saes)
    assert run.exit_code == 1
    assert "is not in the history" in run.text


@pytest.mark.parametrize("url", ["nope://x", "FILE"])
def test_a_place_that_cannot_be_used_stops_the_run_at_once(gate, tmp_path, url):
    """Exit 4, before anything is measured."""
    (tmp_path / "file").write_text("")
    run = gate(*FEW, f"--sae-history={url.replace('FILE', str(tmp_path / 'file'))}")
    assert run.exit_code == 4
    assert "--sae-history" in run.text
    assert not run.record_path.exists()


def test_secrets_of_the_url_are_in_no_record(gate):
    """Records in the history hold no secrets of its URL."""
    fsspec.register_implementation("spelt", type("Spelt", (MemoryFileSystem,), {"protocol": "spelt"}), clobber=True)
    run = gate(*FEW, "--sae-history=spelt://user:hunter2@host/runs")
    assert "spelt://host/runs" in run.text
    assert "hunter2" not in run.record_path.read_text()
    assert dict(run.record.options)["history"] == "spelt://host/runs"
    assert "hunter2" not in json.dumps(run.lines)


def test_a_history_in_the_ini_file(gate, pytester, tmp_path):
    """The option may be in the ini file, like every option."""
    pytester.makeini(f"[pytest]\nsae_history = {tmp_path / 'ini'}\n")
    gate(*FEW)
    assert len(kept(tmp_path / "ini")) == 1
