"""Results from every process -> the record, the table, and a run that is red if anything was not judged."""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sae_checks import errors
from sae_checks.plugin.state import LEDGER, REQUEST, RESULT, cell_of
from sae_checks.run import recording

if TYPE_CHECKING:
    from sae_checks.record.results import Record, Result

HISTORY_NOT_KEPT = 6
"""The exit status of a run that would have been green and whose record did not reach the history: none of pytest's own,
for it says nothing of the release."""

_MARKUP: dict[str, dict[str, bool]] = {
    "good": {"green": True},
    "bad": {"red": True, "bold": True},
    "warn": {"yellow": True},
    "plain": {},
}


class Reporter:
    """Registered only in a run that was asked to judge a release."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._asked = config.stash[REQUEST]
        self._ledger = config.stash[LEDGER]
        self._started = datetime.now(UTC)
        self._started_s = time.monotonic()
        self._exit_status: int | None = None
        self._complaints: list[str] = []
        self._written: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        result = item.stash.get(RESULT, None)
        if result is not None and report.when == "setup":  # once: the fixture has the result before the test runs
            from sae_checks.record import record

            report.sae_checks = record.pack(result)  # an attribute of a report crosses xdist as it is
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        packed = getattr(report, "sae_checks", None)
        cell = cell_of(report.nodeid)
        if packed is not None:
            from sae_checks.record import record

            result = record.unpack(packed)
            self._ledger.results[result.sae_id, result.check] = result
        elif report.failed and cell in self._asked.limits and cell not in self._ledger.results:
            self._ledger.results[cell] = recording.without_verdict(
                self._asked, cell, "error", _last_line(report.longreprtext)
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workerinput") or self._config.getoption("collectonly"):
            return
        ended = session.exitstatus
        if ended in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = self._verdict_on_the_run(pytest.ExitCode(ended))
        self._exit_status = int(session.exitstatus)
        path, history = self._asked.plan.options.record, self._asked.plan.options.history
        if self._ledger.results and (path is not None or history is not None):
            from sae_checks.record import record

            run = self._record()
            if path is not None:
                record.write(run, path)
                self._written.append(f"run record: {path}")
            if history is not None and not self._kept(run, history):
                session.exitstatus = session.exitstatus or HISTORY_NOT_KEPT
        report = self._asked.plan.options.report
        if report is not None and self._ledger.results and not self._reported(report):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._ledger.results and not self._complaints:
            return
        from sae_checks.report import terminal

        results = [result for result in self._in_order() if (result.sae_id, result.check) in self._ledger.selected]
        self._explain(terminalreporter)
        terminalreporter.section(f"sae-checks: {self._asked.plan.release.name}")
        n_columns = max(120, self._config.get_terminal_writer().fullwidth)
        for line in (
            *terminal.check_table(results, n_columns=n_columns),
            *terminal.octave_table(results),
            *terminal.baseline_table(results),
        ):
            for piece in line:
                terminalreporter.write(piece.text, **_MARKUP[piece.tone])
            terminalreporter.line("")
        terminalreporter.line(terminal.outcome_counts(results))
        if early := terminal.early_stops(results):
            terminalreporter.line(early)
        for result in results if self._config.option.tbstyle == "no" else ():  # else pytest's own sections tell
            if result.outcome in ("failed", "inconclusive", "error"):
                for text in terminal.message_lines(result):
                    terminalreporter.line(text, red=True)
        for text in self._complaints:
            terminalreporter.line(text, red=True, bold=True)
        is_green = self._exit_status == pytest.ExitCode.OK  # of the verdicts: a report may have failed since
        name = self._asked.plan.release.name
        terminalreporter.line(terminal.closing_line(name, results, is_green=is_green), bold=True, green=is_green)
        for text in self._written:
            terminalreporter.line(text)

    def _explain(self, terminalreporter: pytest.TerminalReporter) -> None:
        """A section for each SAE of this run that --sae-explain asked for."""
        from sae_checks.release import release
        from sae_checks.report import explaining, wording

        patterns, own = self._asked.plan.options.explain, {subject for subject, _ in self._asked.own}
        results = self._in_order() if patterns else []
        for sae_id in release.matching(self._asked.plan.release.sae_ids, patterns):
            if sae_id in own:
                terminalreporter.section(f"why {wording.text(sae_id)}")
                for line in explaining.explain_sae([result for result in results if result.sae_id == sae_id]):
                    terminalreporter.line(line)

    def _kept(self, run: Record, url: str) -> bool:
        """Whether *run* is in the history now; if not, that is said in red, and the verdicts stay as they are."""
        from sae_checks.comparing.history import store

        try:
            to = store.open_history(url)
            run_id = store.add(run, to)
        except (errors.HistoryError, errors.UsageError) as problem:
            self._complaints.append(str(problem))
            return False
        self._written.append(f"run kept: {run_id} in {to.url}")
        return True

    def _reported(self, path: Path) -> bool:
        """Write the report that was asked for; a run without it is red, however its SAEs were judged."""
        from sae_checks.report import folder

        try:
            self._written.extend(folder.write(self._record(), path))
        except errors.SaeChecksError as problem:
            self._complaints.append(str(problem))
            return False
        return True

    def _verdict_on_the_run(self, ended: pytest.ExitCode) -> pytest.ExitCode:
        """What pytest would call a success is one only if every SAE that was selected got a verdict."""
        if not self._ledger.selected:
            self._complaints.append(errors.no_check_ran([str(arg) for arg in self._config.args]))
            return pytest.ExitCode.USAGE_ERROR
        missing = recording.shortcoming(self._asked, self._ledger.results, self._ledger.selected)
        if missing is not None:
            self._complaints.append(missing)
            return pytest.ExitCode.TESTS_FAILED
        return ended

    def _in_order(self) -> list[Result]:
        """A result for every SAE and check of the plan, in the plan's order."""
        return recording.all_results(self._asked, self._ledger.results, self._ledger.selected)

    def _record(self) -> Record:
        return recording.make_record(
            self._asked,
            self._in_order(),
            started=self._started.isoformat(timespec="seconds"),
            wall_s=time.monotonic() - self._started_s,
            exit_status=self._exit_status,
        )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return errors.shown(lines[-1], n_most=400) if lines else "it failed without a word"
