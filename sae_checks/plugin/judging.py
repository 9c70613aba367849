"""One check of one SAE: losses -> readings -> verdict -> result. Where the two wings meet, through `losses`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sae_checks import checks, errors, stats, verdict
from sae_checks.executors.local import LocalExecutor
from sae_checks.losses import TextLosses
from sae_checks.plugin.state import Asked
from sae_checks.provenance import Provenance
from sae_checks.record import Result
from sae_checks.stats import CurvePoint, NotMeasured, Reading

_OF_TEXT: dict[str, Callable[[TextLosses], tuple[Reading, ...]]] = {
    checks.CE_LOSS.name: stats.ce_loss,
    checks.LONG_CONTEXT.name: stats.long_context,
    checks.SPARSITY.name: stats.sparsity,
}


def checks_of_one_pass(check: checks.Check) -> frozenset[str]:
    """Names of the checks that the same pass over the same corpus serves."""
    return frozenset(_OF_TEXT) if check.name in _OF_TEXT else frozenset({check.name})


def judge(executor: LocalExecutor, asked: Asked, sae_id: str, check: checks.Check, together: Collection[str]) -> Result:
    """Measure *sae_id* (with *together*) and judge *check*; what cannot be measured is an error with its reason."""
    limit = asked.limits[sae_id, check.name]
    provenance: Provenance | None = None
    curve: tuple[CurvePoint, ...] = ()
    try:
        if check.name in _OF_TEXT:
            text = executor.text(sae_id, together)
            readings, provenance = _OF_TEXT[check.name](text.losses), text.provenance
            curve = stats.curve(text.losses) if check is checks.LONG_CONTEXT else ()
        elif check is checks.CBT:
            if asked.plan.cbt is None:
                readings = _not_given(check, "no Children's Book Test was given (--sae-cbt)")
            else:
                chosen = executor.choices(sae_id, together)
                readings, provenance = stats.cbt(chosen.losses), chosen.provenance
        elif asked.plan.lambada is None:
            readings = _not_given(check, "no Lambada passages were given (--sae-lambada)")
        else:
            items = executor.items(sae_id, together)
            readings, provenance = stats.lambada(items.losses), items.provenance
    except errors.SaeChecksError as problem:
        return Result(sae_id=sae_id, check=check.name, outcome="error", reason=str(problem), limit=limit)
    decided = verdict.judge(readings, limit)
    return Result(
        sae_id=sae_id,
        check=check.name,
        outcome=decided.outcome,
        reason=decided.reason,
        limit=limit,
        estimates=decided.estimates,
        curve=curve,
        provenance=provenance,
    )


def properties(result: Result) -> list[tuple[str, object]]:
    """The result as JUnit properties of its test case: outcome, limit, and every measure with its interval."""
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
            (f"limit.{result.limit.kind}", result.limit.value),
            ("limit.unit", result.limit.unit),
            ("limit.source", result.limit.source),
            ("limit.where", result.limit.where),
        ]
    for e in result.estimates:
        found += [(e.measure, e.value), (f"{e.measure}.low", e.low), (f"{e.measure}.high", e.high)]
        found += [(f"{e.measure}.unit", e.unit), (f"{e.measure}.n", e.n)]
    return found


def _not_given(check: checks.Check, reason: str) -> tuple[Reading, ...]:
    return tuple(NotMeasured(measure=m.name, reason=reason) for m in check.measures)
