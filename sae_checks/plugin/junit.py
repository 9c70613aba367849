"""Turns a result into JUnit properties."""

from __future__ import annotations

from dataclasses import asdict

from sae_checks import errors
from sae_checks.record.results import Result


def properties(result: Result) -> list[tuple[str, object]]:
    """The JUnit properties of a test case: outcome, reason, limit, and every measure with its interval."""
    found: list[tuple[str, object]] = [
        ("sae_id", result.sae_id),
        ("check", result.check),
        ("outcome", result.outcome),
        ("reason", errors.shown(result.reason.partition("\n")[0], n_most=400)),
    ]
    if result.limit is not None:
        found += [
            ("limit", str(result.limit)),
            ("limit.measure", result.limit.measure),
            *((f"limit.{end.kind}", end.value) for end in result.limit.sides),
            ("limit.unit", result.limit.unit),
            ("limit.source", result.limit.source),
            ("limit.where", result.limit.where),
        ]
    if result.decision is not None:
        decision = asdict(result.decision).items()
        found += [(f"decision.{name}", number) for name, number in decision if number is not None]
    for e in result.estimates:
        found += [(e.measure, e.value), (f"{e.measure}.low", e.low), (f"{e.measure}.high", e.high)]
        found += [(f"{e.measure}.unit", e.unit), (f"{e.measure}.n", e.n)]
    return found
