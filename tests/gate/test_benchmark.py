"""Time as a report: one benchmark per SAE, with what was measured of it beside it."""

import json

import pytest
from tiny_release import CHECKS, HOOKS, N_CELLS, N_CHECKS, NOT_OF_THIS_RELEASE

from sae_checks import checks

pytest_plugins = ["pytester"]

MEASURES = {m.name for check in CHECKS for m in checks.named(check).measures}
MEASURES -= NOT_OF_THIS_RELEASE | set(checks.CE_LOSS.ablated)


@pytest.fixture
def benchmarks(pytester, gate):
    """A run with --benchmark-json -> (the run, its benchmarks by SAE)."""

    def run(*args):
        path = pytester.path / "times.json"
        done = gate(f"--benchmark-json={path}", *args)
        assert path.exists(), done.text
        return done, {b["params"]["sae_id"]: b for b in json.loads(path.read_text())["benchmarks"]}

    return run


def test_one_benchmark_per_sae_with_its_measures(benchmarks):
    """Every SAE is timed in a few rounds, and every measure of every check lies in extra_info."""
    run, found = benchmarks()
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS + len(HOOKS)}), run.text
    assert set(found) == set(HOOKS)
    for sae_id, benchmark in found.items():
        assert set(benchmark["extra_info"]) == MEASURES
        for check in CHECKS:
            for e in run.results[sae_id, check].estimates:
                assert benchmark["extra_info"][e.measure] == e.value
        assert benchmark["stats"]["rounds"] == 3
        assert benchmark["stats"]["min"] > 0


def test_names_are_stable(benchmarks):
    """The names are keys of histories: no path of this machine in them."""
    _, found = benchmarks("--rootdir=/")
    for sae_id, benchmark in found.items():
        assert benchmark["fullname"] == f"sae_checks/gate/test_speed.py::test_speed[{sae_id}]"
        assert benchmark["name"] == f"test_speed[{sae_id}]"


def test_broken_sae_is_an_error_here_too(tmp_path, tiny, gate):
    """An SAE that cannot be loaded cannot be timed: an error with the same sentence, and the others are timed."""
    from tiny_release import copy_saes

    saes = copy_saes(tiny, tmp_path / "saes")
    (saes / HOOKS[0] / "cfg.json").write_text("{")
    run = gate(f"--benchmark-json={tmp_path / 'times.json'}", saes=saes)
    assert (run.exit_code, run.counts) == (1, {"passed": 2 * (N_CHECKS + 1), "errors": N_CHECKS + 1}), run.text
    assert {b["params"]["sae_id"] for b in json.loads((tmp_path / "times.json").read_text())["benchmarks"]} == {
        HOOKS[1],
        HOOKS[2],
    }


def test_speed_alone_is_not_a_pass(gate):
    """Timing judges nothing: a run of test_speed alone ends with exit code 4."""
    run = gate("--benchmark-only", "-k", "speed")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "no check of the release ran" in run.text


def test_record_holds_checks_only(benchmarks):
    """A timing is no check and does not enter the record."""
    run, _ = benchmarks("-k", "speed or sparsity")
    assert run.exit_code == 0
    assert set(run.results) == {(hook, check) for hook in HOOKS for check in CHECKS}
    assert run.outcomes[HOOKS[0], "sparsity"] == "passed"


def test_without_pytest_benchmark_it_is_skipped(gate):
    """Where pytest-benchmark is switched off the timing is skipped with the reason, and the checks decide."""
    from sae_checks.plugin.state import GATE

    run = gate("-p", "no:benchmark", "-rs", GATE)
    assert (run.exit_code, run.counts) == (0, {"passed": N_CELLS}), run.text
    run = gate("-p", "no:benchmark", "-rs", GATE / "test_speed.py", GATE / "test_sparsity.py")
    assert (run.exit_code, run.counts) == (0, {"passed": 3, "skipped": 3}), run.text
    assert "pytest-benchmark is not installed" in run.text
