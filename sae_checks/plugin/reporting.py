"""
Collects the results of every process, writes what the options ask for, and prints the summary.

A run is red if an SAE that was selected has no verdict.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sae_checks import errors
from sae_checks.plugin import closing, misspelt
from sae_checks.plugin.state import REQUEST, RESULT, RUN_STATE, cell_in_nodeid
from sae_checks.run import recording

if TYPE_CHECKING:
    from sae_checks.record.results import Record, Result
    from sae_checks.run.settle import Request

EXIT_NOT_IN_HISTORY = 6
"""exit status of a green run whose record could not be added to the history; pytest itself uses 0 to 5."""


class Reporter:
    """The hooks that collect and report results; registered when a release is given."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._state = config.stash[RUN_STATE]
        self._started = datetime.now(UTC)
        self._started_s = time.monotonic()
        self._exit_status: int | None = None
        self._problems: list[str] = []
        self._written: list[str] = []
        self._page: Path | None = None
        self._hidden = closing.Hidden()
        config.pluginmanager.register(self._hidden)

    @property
    def _request(self) -> Request:
        """What the run judges; the texts are pinned when the checks are selected."""
        return self._config.stash[REQUEST]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Attach the result of a check to its report."""
        report = yield
        result = item.stash.get(RESULT, None)
        if result is not None and report.when == "setup":  # WHY: the fixture has set it by then, and once is enough
            from sae_checks.record import record

            report.sae_checks = record.pack(result)  # WHY: xdist sends attributes of a report to the controller
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result of a check, in this process or from a worker; an error in a fixture has none of its own."""
        packed = getattr(report, "sae_checks", None)
        cell = cell_in_nodeid(report.nodeid)
        if packed is not None:
            from sae_checks.record import record

            result = record.unpack(packed)
            self._state.results[result.sae_id, result.check] = result
        elif report.failed and cell in self._request.limits and cell not in self._state.results:
            self._state.results[cell] = recording.without_verdict(
                self._request, cell, "error", _last_line(report.longreprtext)
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Count an inconclusive check of the smoke profile as undecided; it has passed as a test."""
        result = self._state.results.get(cell_in_nodeid(report.nodeid) or ("", ""))
        if result is None or result.outcome != "inconclusive" or report.when != "call" or not report.passed:
            return None
        return "undecided", "?", ("UNDECIDED", {"yellow": True})

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Decide the exit status, write the record and the report, and add the run to the history."""
        if hasattr(self._config, "workerinput") or self._config.getoption("collectonly"):
            return
        status = session.exitstatus
        if status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = self._exit_status_of_run(pytest.ExitCode(status))
        self._exit_status = int(session.exitstatus)
        self._write_verdict_to_junit()
        path, history = self._request.plan.options.record, self._request.plan.options.history
        if self._state.results and (path is not None or history is not None):
            from sae_checks.record import record

            run = self._record()
            if path is not None:
                record.write(run, path)
                self._written.append(f"run record: {path}")
                self._keep_if_green(run, path.parent)
            if history is not None and not self._add_to_history(run, history):
                session.exitstatus = session.exitstatus or EXIT_NOT_IN_HISTORY
        report = self._request.plan.options.report
        if report is not None and self._state.results and not self._write_report(report):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # WHY: what is printed after the yield is below pytest's own summary
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, Any, Any]:
        """Let pytest list the user's own tests; then print explanations, tables, messages and the verdict."""
        self._hidden.hide(terminalreporter)
        try:
            return (yield)
        finally:
            self._hidden.restore()
            if self._state.results or self._problems:
                self._write_end(terminalreporter)

    def _write_end(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what the run found, the verdict last."""
        from sae_checks.report import corpus_notes, terminal, terminal_tables

        results = [result for result in self._all_results() if (result.sae_id, result.check) in self._state.selected]
        shows_all = self._config.getoption("verbose") > 0
        n_columns = self._config.get_terminal_writer().fullwidth
        terminalreporter.ensure_newline()
        self._write_explanations(terminalreporter)
        if texts := terminal.messages(results, shows_all=shows_all):
            terminalreporter.section("not green")
            closing.write_red(terminalreporter, texts)
        terminalreporter.section(f"sae-checks: {self._request.plan.release.name}")
        closing.write(terminalreporter, terminal_tables.tables(results, n_columns=n_columns, shows_all=shows_all))
        closing.write(terminalreporter, corpus_notes.terminal_lines(results, n_columns))
        closing.write_red(terminalreporter, self._problems)
        for text in self._written:
            terminalreporter.line(text)
        lines = terminal.last_lines(
            self._request.plan.release.name,
            results,
            self._record().verdict,
            n_columns=n_columns,
            page=self._page,
            n_timed=closing.n_timed(terminalreporter),
            shows_all=shows_all,
        )
        closing.write(terminalreporter, lines)

    def _write_explanations(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write a section for each SAE of this run that matches --sae-explain."""
        from sae_checks.release import release
        from sae_checks.report import explaining, wording

        patterns, own = self._request.plan.options.explain, {subject for subject, _ in self._request.own}
        results = self._all_results() if patterns else []
        for sae_id in release.matching(self._request.plan.release.sae_ids, patterns):
            if sae_id in own:
                terminalreporter.section(f"why {wording.text(sae_id)}")
                for line in explaining.explain_sae([result for result in results if result.sae_id == sae_id]):
                    terminalreporter.line(line)

    def _write_verdict_to_junit(self) -> None:
        from sae_checks.plugin import junit  # WHY here: it imports NumPy

        junit.add_verdict(self._config, self._record())

    def _keep_if_green(self, run: Record, folder: Path) -> None:
        """Make *run* what --sae-baseline=last finds, if it may be."""
        from sae_checks.comparing import last_green

        if (kept := last_green.keep(run, folder)) is not None:
            self._written.append(f"last green run: {kept}")

    def _add_to_history(self, run: Record, url: str) -> bool:
        """Add *run* to the history; return whether that worked. A problem is shown in red and changes no verdict."""
        from sae_checks.comparing.history import store

        try:
            history = store.open_history(url)
            run_id = store.add(run, history)
        except (errors.HistoryError, errors.UsageError) as problem:
            self._problems.append(str(problem))
            return False
        self._written.append(f"run kept: {run_id} in {history.url}")
        return True

    def _write_report(self, path: Path) -> bool:
        """Write the report; return whether that worked. A run that cannot write its report is red."""
        from sae_checks.report import folder

        try:
            self._written.extend(folder.write(self._record(), path))
            self._page = path / "index.html"
        except errors.SaeChecksError as problem:
            self._problems.append(str(problem))
            return False
        return True

    def _exit_status_of_run(self, status: pytest.ExitCode) -> pytest.ExitCode:
        """The exit status of a run that ended with *status*: a success only if every selected SAE has a verdict."""
        if not self._state.selected:
            self._problems.append(misspelt.nothing_selected(self._config))
            return pytest.ExitCode.USAGE_ERROR
        missing = recording.shortcoming(self._request, self._state.results, self._state.selected)
        if missing is not None:
            self._problems.append(missing)
            return pytest.ExitCode.TESTS_FAILED
        return status

    def _all_results(self) -> list[Result]:
        """A result for every check of the plan, in the plan's order; a check that was not judged says why."""
        return recording.all_results(self._request, self._state.results, self._state.selected)

    def _record(self) -> Record:
        """The record of the run as it is now."""
        return recording.make_record(
            self._request,
            self._all_results(),
            started=self._started.isoformat(timespec="seconds"),
            wall_s=time.monotonic() - self._started_s,
            exit_status=self._exit_status,
        )


def _last_line(text: str) -> str:
    """The last line of a traceback, which names the exception."""
    lines = text.strip().splitlines()
    return errors.shown(lines[-1], n_most=400) if lines else "it failed without a message"
