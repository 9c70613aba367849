"""Turns a result into JUnit properties, and the verdict on a run into one of the suite."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sae_checks import errors
from sae_checks.record.results import Record, Result

VERDICT = "sae_checks.verdict"
"""Property of the suite: the verdict on the run."""


def properties(result: Result) -> list[tuple[str, object]]:
    """The JUnit properties of a test case: outcome, reason, limit, every measure, and the bounds of the judged one."""
    found: list[tuple[str, object]] = [
        ("sae_id", result.sae_id),
        ("check", result.check),
        ("outcome", result.outcome),
        ("reason", errors.shown(result.reason.partition("\n")[0], n_most=400)),
    ]
    if result.diagnosis is not None:
        found.append(("diagnosis", result.diagnosis.sentence))
    if result.limit is not None:
        found += [
            ("limit", str(result.limit)),
            ("limit.measure", result.limit.measure),
            *((f"limit.{end.kind}", end.value) for end in result.limit.sides),
            ("limit.unit", result.limit.unit),
            ("limit.source", result.limit.source),
            ("limit.where", result.limit.where),
        ]
    found += [(f"limits.{other.limit.measure}", f"{other.limit}: {other.outcome}") for other in result.other_limits]
    if result.accepted is not None:
        found.append(("accepted", result.accepted))
    if result.decision is not None:
        decision = asdict(result.decision).items()
        found += [(f"decision.{name}", number) for name, number in decision if number is not None]
    judged = result.judged
    for e in result.estimates:
        value = judged.value if judged is not None and judged.measure == e.measure else e.value
        found += [(e.measure, value), (f"{e.measure}.unit", e.unit)]
    if judged is not None:
        ends = (("low", judged.low), ("high", judged.high))
        found += [(f"{judged.measure}.{name}", end) for name, end in ends if end is not None]
        found.append((f"{judged.measure}.n", judged.n))
        found += [] if judged.bound is None else [(f"{judged.measure}.limit", str(judged.bound))]
    return found


def add_verdict(config: pytest.Config, run: Record) -> None:
    """Add the verdict on *run* to the suite, if pytest writes JUnit XML."""
    for plugin in config.pluginmanager.get_plugins():
        # WHY not record_testsuite_property: under xdist a worker's properties of the suite are lost
        add = getattr(plugin, "add_global_property", None)
        if add is not None:
            add(VERDICT, run.verdict)
