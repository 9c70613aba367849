"""A tiny release for the whole session, and a run of the gate on it inside this process."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_release
from gate_run import QUIET, GateRun, options_of_outputs, run_in
from tiny_release import TinyRelease

from sae_checks.plugin import outputs
from sae_checks.record import record


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRelease:
    """
    The tiny release, once per session.

    Everything heavy is imported and used once here: pytester forgets what an in-process run imports, and importing
    torch twice is slow at best.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        release = tiny_release.build(tmp_path_factory.mktemp("tiny"))
        _warm_up(release)
    gc.freeze()  # pytest collects garbage five times after every run: seconds, with all of torch to walk through
    return release


@pytest.fixture
def gate(
    pytester: pytest.Pytester, tiny: TinyRelease, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> Callable[..., GateRun]:
    """
    `pytest --sae-release ...` in this process and in pytester's folder, with record, report and JUnit XML.

    It times no SAE, which has its own tests.
    """
    monkeypatch.setattr(outputs, "times_saes", lambda _: False)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)

    def run(
        *args: str | Path, saes: Path | None = None, lambada: bool = True, options: list[str] | None = None
    ) -> GateRun:
        asked = tiny.args(saes, lambada=lambada) if options is None else options
        quick = ["-p", "no:hypothesispytest"]  # it imports hypothesis at the end of every run
        written = options_of_outputs(pytester.path, asks=bool(asked))
        result = pytester.runpytest_inprocess(*quick, *asked, *written, *map(str, args), no_reraise_ctrlc=True)
        return run_in(pytester.path, int(result.ret), [*result.outlines, *result.errlines])

    return run


@pytest.fixture(scope="module")
def runs() -> dict[str, GateRun]:
    """By name, runs that several tests of a module read: `gate` is made anew for each test."""
    return {}


def _warm_up(release: TinyRelease) -> None:
    from judged import judge

    from sae_checks import checks
    from sae_checks.measuring.local import LocalExecutor
    from sae_checks.plan import flags, options
    from sae_checks.report import folder, terminal_tables
    from sae_checks.run.settle import settle

    raw = {
        **flags.defaults(),
        "sae_release": str(release.saes),
        "sae_model": str(release.model),
        "sae_corpus": str(release.corpus),
        "sae_lambada": str(release.lambada),
        "sae_cbt": str(release.cbt),
        "sae_study_sequences": "0",
    }
    asked = settle(options.parse(raw))
    executor = LocalExecutor(asked.plan)
    sae_ids = asked.plan.release.sae_ids
    of_first = [check for check in checks.CHECKS if (sae_ids[0], check.name) in asked.limits]
    results = [judge(executor, asked, sae_ids[0], check) for check in of_first]
    assert [record.unpack(record.pack(result)).outcome for result in results] == ["passed"] * len(results)
    assert terminal_tables.tables(results, n_columns=80)
    assert folder.PLOTS
