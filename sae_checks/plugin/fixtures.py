"""Fixtures of the gate. Measuring happens here, so that what cannot be measured is an error and not a failure."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sae_checks import errors
from sae_checks.plan.options import Profile
from sae_checks.plugin import xdist
from sae_checks.plugin.progress import ProgressLine
from sae_checks.plugin.state import LEDGER, REQUEST, RESULT
from sae_checks.run.settle import Cell, compared

if TYPE_CHECKING:
    from sae_checks.record.results import Result
    from sae_checks.run.judge import Judge


class InconclusiveWarning(pytest.PytestWarning):
    """A check of the smoke profile could not tell the value from the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of one check, for its test to enforce."""

    result: Result
    profile: Profile

    def enforce(self) -> None:
        """Fail unless passed; skip what was not measured; what is inconclusive is a warning in the smoke profile."""
        from sae_checks.report.terminal import message_lines

        if self.result.outcome in ("not_measured", "reported"):
            pytest.skip(self.result.reason)
        told = "\n".join(message_lines(self.result))
        if self.result.outcome == "inconclusive" and self.profile == "smoke":
            warnings.warn(InconclusiveWarning(told), stacklevel=2)
        elif self.result.outcome != "passed":
            pytest.fail(told, pytrace=False)


@pytest.fixture
def sae_judgement(request: pytest.FixtureRequest, sae_id: str) -> Judgement:
    """The result of this test's check (its `sae_check` marker) for the SAE *sae_id*."""
    from sae_checks.plugin import junit
    from sae_checks.run.stopping import compare

    marker = request.node.get_closest_marker("sae_check")
    asked, ledger = request.config.stash[REQUEST], request.config.stash[LEDGER]
    cell = (sae_id, marker.args[0])
    measured = compared(cell)
    result = ledger.results.get(measured) if measured != cell else None
    if result is None:
        result = _judged(request.config, measured)
    if measured != cell:
        result = compare(asked, result)
    request.node.stash[RESULT] = result
    request.node.user_properties.extend(junit.properties(result))
    if result.outcome == "error":
        pytest.fail(result.reason, pytrace=False)  # in a fixture: JUnit says <error>, not <failure>
    return Judgement(result=result, profile=asked.plan.options.profile)


def _judged(config: pytest.Config, cell: Cell) -> Result:
    return _judge(config).result(cell, xdist.together(config, cell[0]))


@pytest.fixture
def sae_speed(request: pytest.FixtureRequest, sae_id: str) -> Callable[[], None]:
    """A spliced forward pass of *sae_id*, ready to be timed; what was measured of it travels along in `extra_info`."""
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.skip("pytest-benchmark is not installed")
    problem = ""
    try:
        forward = _judge(request.config).executor.spliced_forward(sae_id)
    except errors.SaeChecksError as raised:
        problem = str(raised)
    if problem:  # outside of the handler, or pytest shows it twice; before `benchmark`, which warns when it is not used
        pytest.fail(problem, pytrace=False)
    benchmark = request.getfixturevalue("benchmark")
    for (measured_id, _), result in request.config.stash[LEDGER].results.items():
        if measured_id == sae_id:
            benchmark.extra_info.update({e.measure: e.value for e in result.estimates})
    # few rounds: one is seconds long on a large model
    return lambda: benchmark.pedantic(forward, rounds=3, warmup_rounds=1)


def _judge(config: pytest.Config) -> Judge:
    ledger = config.stash[LEDGER]
    if ledger.judge is None:
        # OpenMP's threads spin while they wait: with another busy process on two cores the demo's text pass took 50 s
        # instead of 6 (and 3 on a quiet machine either way). Read when torch is loaded; a user's own setting stands.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from sae_checks.measuring.local import LocalExecutor  # torch, transformers and SAE Lens from here on
        from sae_checks.run.judge import Judge

        request = config.stash[REQUEST]
        ledger.judge = Judge(request, LocalExecutor(request.plan, ProgressLine.of(config).of_kind))
    return ledger.judge
