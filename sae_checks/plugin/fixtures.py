"""
The fixtures of the gate, which measure and judge.

A problem in a fixture is an <error> in JUnit; in a test it would be a <failure>, which is a verdict on the SAE.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sae_checks import errors
from sae_checks.plan.options import Profile
from sae_checks.plugin import xdist
from sae_checks.plugin.progress import ProgressLine
from sae_checks.plugin.state import REQUEST, RESULT, RUN_STATE
from sae_checks.record import run_verdict
from sae_checks.run import enough
from sae_checks.run.settle import measured_cell

if TYPE_CHECKING:
    from sae_checks.corpora.corpus import Corpus
    from sae_checks.record.results import Result
    from sae_checks.run.judge import Judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of one check, which its test enforces."""

    result: Result
    profile: Profile

    def enforce(self) -> None:
        """
        End the test by the outcome: pass, fail, or skip.

        A check that was not measured or is only reported skips. In the smoke profile an inconclusive check passes, and
        `Reporter` counts it as undecided.
        """
        from sae_checks.report.terminal import message_lines

        if self.result.outcome in ("not_measured", "reported"):
            pytest.skip(self.result.reason)
        if run_verdict.is_red(self.result.outcome, profile=self.profile):
            pytest.fail("\n".join(message_lines(self.result)), pytrace=False)


@pytest.fixture
def sae_judgement(request: pytest.FixtureRequest, sae_id: str) -> Judgement:
    """The result of this test's check (its `sae_check` marker) for the SAE *sae_id*."""
    from sae_checks.plugin import junit

    marker = request.node.get_closest_marker("sae_check")
    settled, state = request.config.stash[REQUEST], request.config.stash[RUN_STATE]
    cell = (sae_id, marker.args[0])
    measured = measured_cell(cell)
    is_comparison = measured != cell
    result = state.results.get(measured) if is_comparison else None
    if result is None:
        result = _judge(request.config).result(measured, xdist.selected_in_share(request.config, measured[0]))
    if is_comparison:
        result = _judge(request.config).comparison(result, xdist.selected_in_share(request.config, measured[0]))
    request.node.stash[RESULT] = result
    request.node.user_properties.extend(junit.properties(result))
    if result.outcome == "error":
        pytest.fail(result.reason, pytrace=False)
    return Judgement(result=result, profile=settled.plan.options.profile)


@pytest.fixture
def sae_speed(request: pytest.FixtureRequest, sae_id: str) -> Callable[[], None]:
    """A function that times a spliced forward pass of *sae_id*; the values measured of it are in `extra_info`."""
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.skip("pytest-benchmark is not installed")
    problem = ""
    try:
        forward = _judge(request.config).executor.spliced_forward(sae_id)
    except errors.SaeChecksError as raised:
        problem = str(raised)
    if problem:  # WHY here: in the handler pytest shows it twice, and `benchmark` warns when it is made and not used
        pytest.fail(problem, pytrace=False)
    benchmark = request.getfixturevalue("benchmark")
    for (measured_id, _), result in request.config.stash[RUN_STATE].results.items():
        if measured_id == sae_id:
            benchmark.extra_info.update({e.measure: e.value for e in result.estimates})
    # WHY few rounds: one takes seconds on a large model
    return lambda: benchmark.pedantic(forward, rounds=3, warmup_rounds=1)


def _judge(config: pytest.Config) -> Judge:
    """The judge of this process; made when the first check is measured."""
    state = config.stash[RUN_STATE]
    if state.judge is None:
        # WHY: OpenMP's threads spin while they wait. With another busy process on two cores the demo's text pass took
        # 50 s instead of 6 (3 on a quiet machine either way). Torch reads this when it is imported; a user's own
        # setting stays.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from sae_checks.plugin.planned_work import planned_work

        request = config.stash[REQUEST]
        line = ProgressLine.of(config, planned_work(request.plan, {measured_cell(cell) for cell in state.selected}))
        line.announce("importing torch and SAE Lens")
        from sae_checks.measuring.local import LocalExecutor  # WHY here: imports torch, transformers and SAE Lens
        from sae_checks.run.judge import Judge

        def on_corpus(corpus: Corpus) -> None:
            if (problem := enough.too_few_left(corpus, request.plan.options)) is not None:
                line.tell(str(problem))

        state.judge = Judge(request, LocalExecutor(request.plan, line.of_kind, line.announce, on_corpus))
    return state.judge
