"""pytest -n: the same outcomes and numbers as without, and each SAE on one worker."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import xmlschema
from gate_run import GateRun, run_apart
from tiny_release import D_MODEL, HOOKS, copy_saes, identity_weights, write_sae, write_zero_sae

from sae_checks.comparing import calibration
from sae_checks.comparing.history import store
from sae_checks.record import record

pytest_plugins = ["pytester"]

# Which worker ran what, as the controller sees it.
WHO = """
def pytest_runtest_logreport(report):
    if report.when == "setup" and hasattr(report, "node"):
        with open("who.txt", "a") as file:
            print(report.node.gateway.id, report.nodeid, file=file)
"""
# SAE Lens takes ten seconds to import, on every worker. Where the test is about who runs what, this reads the weights.
STAND_IN = """
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

Path("stand-in-was-used").touch()


class SAE(torch.nn.Module):
    cfg = SimpleNamespace(normalize_activations="none")
    hook_z_reshaping_mode = False

    def __init__(self, weights):
        super().__init__()
        self.w = torch.nn.ParameterDict(weights)

    @classmethod
    def load_from_disk(cls, folder, device, dtype, converter):
        return cls(load_file(folder / "sae_weights.safetensors"))

    def forward(self, x):
        return self.decode(self.encode(x))

    def encode(self, x):
        return torch.relu((x - self.w["b_dec"]) @ self.w["W_enc"] + self.w["b_enc"])

    def decode(self, latents):
        return latents @ self.w["W_dec"] + self.w["b_dec"]


for name in ("loading", "loading.pretrained_sae_loaders", "saes", "saes.sae", "saes.transcoder"):
    sys.modules[f"sae_lens.{name}"] = SimpleNamespace(SAE=SAE, Transcoder=SAE, sae_lens_disk_loader=None)
"""


@dataclass(frozen=True)
class Spread:
    """A run on two workers."""

    run: GateRun
    folder: Path

    @property
    def workers(self) -> dict[str, set[str]]:
        """SAE -> the workers that ran its checks."""
        found: dict[str, set[str]] = {}
        for line in (self.folder / "who.txt").read_text().splitlines():
            worker, _, nodeid = line.partition(" ")
            found.setdefault(nodeid.partition("[")[2][:-1], set()).add(worker)
        return found


@pytest.fixture(scope="module")
def saes(tmp_path_factory, tiny):
    """A release with every outcome, and numbers that are not all 0 and 1."""
    folder = copy_saes(tiny, tmp_path_factory.mktemp("spread") / "saes")
    shutil.rmtree(folder / HOOKS[1])
    write_sae(folder / HOOKS[1], HOOKS[1], weights={"W_dec": 0.9 * identity_weights(D_MODEL)["W_dec"]})
    write_zero_sae(folder / "zero", HOOKS[1])
    write_sae(folder / "broken", HOOKS[0])
    (folder / "broken" / "cfg.json").write_text("{")
    return folder


# Everything in the way that a user may have set; imports count here, since nothing is imported yet.
INI = "[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config\nxfail_strict = true\n"
# A part of the release, so that deselecting is seen across processes too.
SOME = ("-k", "not (zero and lambada)", "--sae-profile=full")
EXPLAINED = "--sae-explain=zero"


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory, tiny, saes):
    """`pytest -n 2`, in processes of its own and with everything real: an explanation and a history, too."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "conftest.py").write_text(WHO)
    (folder / "pytest.ini").write_text(INI)
    history = f"--sae-history={folder / 'history'}"
    return Spread(run=run_apart(folder, "-n2", *tiny.args(saes), *SOME, EXPLAINED, history), folder=folder)


@pytest.fixture
def one_process(gate, saes, runs):
    """The same without -n."""
    if not runs:
        runs["alone"] = gate(*SOME, EXPLAINED, saes=saes)
    return runs["alone"]


def test_same_outcomes(two_workers, one_process):
    """Every SAE and check has the same outcome, and the run the same exit code."""
    assert two_workers.run.outcomes == one_process.outcomes, two_workers.run.text
    assert two_workers.run.exit_code == one_process.exit_code == 1
    counts = {
        word: n for word, n in one_process.counts.items() if word != "deselected"
    }  # workers keep that to themselves
    assert two_workers.run.counts.items() >= counts.items()
    assert set(one_process.outcomes.values()) == {"passed", "failed", "inconclusive", "error", "not_measured"}


def test_same_numbers(two_workers, one_process):
    """Every measure agrees to 1e-9, and what it was made of is the same."""
    n_compared = 0
    for cell, alone in one_process.results.items():
        shared = two_workers.run.results[cell]
        assert shared.provenance == alone.provenance
        assert shared.limit == alone.limit
        assert [e.measure for e in shared.estimates] == [e.measure for e in alone.estimates]
        for a, b in zip(alone.estimates, shared.estimates, strict=True):
            assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high), rel=1e-9, abs=1e-12)
            n_compared += a.value not in (0, 1)
        for a, b in zip(alone.curves, shared.curves, strict=True):
            assert (b.measure, b.position, b.n_sequences) == (a.measure, a.position, a.n_sequences)
            assert b.value == pytest.approx(a.value, rel=1e-5, abs=1e-12)
    assert n_compared > 10, "numbers that say something"


def test_record_is_complete(two_workers, one_process):
    """The controller's record has every SAE and check, in the release's order."""
    found = [(result.sae_id, result.check) for result in two_workers.run.record.results]
    assert found == [(result.sae_id, result.check) for result in one_process.record.results]
    assert two_workers.run.record.release == one_process.record.release


def test_each_sae_on_one_worker(two_workers, saes):
    """The checks of one SAE share a worker, and both workers have work."""
    assert len(two_workers.workers) == 5
    assert all(len(workers) == 1 for workers in two_workers.workers.values())
    assert set.union(*two_workers.workers.values()) == {"gw0", "gw1"}


def test_junit_is_complete(two_workers):
    """JUnit properties cross from the workers, and the XML is valid."""
    xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd").validate(two_workers.run.junit_path)
    assert set(two_workers.run.junit) == set(two_workers.run.results) - {("zero", "lambada")}


def test_junit_has_the_verdict_of_all_workers(two_workers, one_process):
    """A worker's properties of the suite are lost; the controller writes this one."""
    assert two_workers.run.junit_verdict == two_workers.run.record.verdict == one_process.junit_verdict == "failed"


def test_terminal_table_is_complete(two_workers):
    """The table has a row per SAE; workers print no progress."""
    for sae_id in two_workers.run.record.release.sae_ids:
        assert any(line.startswith(f"{sae_id} ") for line in two_workers.run.lines)
    assert "measuring text" not in two_workers.run.text


def test_deselected_is_recorded(two_workers):
    """-k narrows every worker's share, and what was not selected is in the record as such."""
    assert two_workers.run.results["zero", "lambada"].reason.startswith("not selected")


def test_the_limits_that_follow_are_the_same(two_workers, one_process):
    """From what all workers measured, as from what one process did."""
    spread, alone = (calibration.to_toml(found.record) for found in (two_workers.run, one_process))
    assert spread.partition("schema = 1")[2] == alone.partition("schema = 1")[2]
    assert alone.count("[release.") > 10


def test_workers_explain_as_one_process_does(two_workers, one_process):
    """The same explanation in the record, to the rounding of other batches, and a section in the terminal."""
    found, expected = (run.results["zero", "ce_loss"].explanation for run in (two_workers.run, one_process))
    assert [(t.document_index, t.position, t.token, t.spliced_top_token) for t in found.tokens] == [
        (t.document_index, t.position, t.token, t.spliced_top_token) for t in expected.tokens
    ]
    for a, b in zip(found.tokens, expected.tokens, strict=True):
        assert a.increase_nats == pytest.approx(b.increase_nats, rel=1e-3)
        assert [s.position for s in a.restored_positions] == [s.position for s in b.restored_positions]
    assert "why zero" in two_workers.run.text


def test_workers_diagnose_as_one_process_does(two_workers, one_process):
    """Every red check of an SAE has its diagnosis, with the same numbers."""
    found, expected = (
        {cell: result.diagnosis for cell, result in run.results.items() if result.diagnosis is not None}
        for run in (two_workers.run, one_process)
    )
    assert found.keys() == expected.keys() >= {("zero", "ce_loss")}
    for cell, diagnosis in found.items():
        assert diagnosis.sentence == expected[cell].sentence
        assert diagnosis.ce_increase_nats_per_token == pytest.approx(
            expected[cell].ce_increase_nats_per_token, rel=1e-5
        )


def test_one_record_of_all_workers_is_kept(two_workers):
    """The controller writes to the history, once."""
    history = store.open_history(str(two_workers.folder / "history"))
    (kept,) = [record.loads(store.read_text(entry, history), entry.name) for entry in store.entries(history)]
    assert kept == two_workers.run.record


def test_dist_of_the_user(pytester, gate, saes):
    """--dist loadfile is the user's own choice: an SAE's checks on several workers, the outcomes of its shard."""
    pytester.makeconftest("import sys\nsys.path.insert(0, 'stand_in')\n" + WHO)
    pytester.mkdir("stand_in").joinpath("sae_lens.py").write_text(STAND_IN)
    asked = ("--sae-shard=1/2", *SOME)
    found = Spread(run=gate("-n2", "--dist", "loadfile", *asked, saes=saes), folder=pytester.path)
    assert (pytester.path / "stand-in-was-used").exists()
    assert any(len(workers) == 2 for workers in found.workers.values())
    outcomes = found.run.outcomes
    alone = gate(*asked, saes=saes)
    assert outcomes == alone.outcomes, found.run.text
    assert found.run.exit_code == alone.exit_code


def test_nothing_measurable_under_xdist(gate):
    """Skipped on the worker is not a pass on the controller."""
    run = gate("-n1", "-k", "lambada", lambada=False)
    assert (run.exit_code, run.counts["skipped"]) == (1, 3), run.text
    assert "this is not a pass" in run.text


def test_nothing_selected_under_xdist(gate):
    """Nothing selected is not a pass either."""
    run = gate("-n1", "-k", "no_such_check")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR, run.text
    assert "no check of the release ran" in run.text


def test_quiet_under_xdist(pytester, gate):
    """Without a release the plugin stays out of the way of the user's workers."""
    pytester.makepyfile(test_own="def test_own():\n    assert True\n")
    run = gate("-n1", options=[])
    assert (run.exit_code, run.counts["passed"]) == (0, 1), run.text
    assert "sae-checks:" not in run.text
