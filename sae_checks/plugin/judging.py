"""One check of one SAE: losses -> readings -> verdict -> result. Where the two wings meet, through `losses`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sae_checks import checks, comparison, curves, errors, stats, verdict
from sae_checks.curves import Curve
from sae_checks.executors.local import LocalExecutor
from sae_checks.losses import TextLosses
from sae_checks.plugin.state import Asked
from sae_checks.provenance import Provenance
from sae_checks.record import Result
from sae_checks.sequential import Budget
from sae_checks.stats import Flip, NotMeasured, Reading
from sae_checks.thresholds import Limit

_OF_TEXT: dict[str, Callable[[TextLosses, Limit], tuple[Reading, ...]]] = {
    checks.CE_LOSS.name: lambda losses, _: stats.ce_loss(losses),
    checks.LONG_CONTEXT.name: lambda losses, _: stats.long_context(losses),
    checks.USABLE_CONTEXT.name: lambda losses, in_context: curves.usable_context(losses, _most_nats(in_context)),
    checks.SPARSITY.name: lambda losses, _: stats.sparsity(losses),
}
"""The second argument is the SAE's limit within its training context."""


def checks_of_one_pass(check: checks.Check) -> frozenset[str]:
    """Names of the checks that the same pass over the same corpus serves."""
    return frozenset(_OF_TEXT) if check.name in _OF_TEXT else frozenset({check.name})


def judge(executor: LocalExecutor, asked: Asked, sae_id: str, check: checks.Check, together: Collection[str]) -> Result:
    """Measure *sae_id* (with *together*) and judge *check*; what cannot be measured is an error with its reason."""
    limit = asked.limits[sae_id, check.name]
    provenance: Provenance | None = None
    drawn: tuple[Curve, ...] = ()
    flips: tuple[Flip, ...] = ()
    off: list[str] = []
    options = asked.plan.options
    n_planned, n_most = options.n_sequences, 0
    try:
        if check.name in _OF_TEXT:
            text = executor.text(sae_id, together)
            in_context = asked.limits[sae_id, checks.CE_LOSS.name]
            readings, provenance = _OF_TEXT[check.name](text.losses, in_context), text.provenance
            drawn = curves.curves(text.losses) if check is checks.LONG_CONTEXT else ()
            n_most = provenance.corpus.n_sequences
        elif check is checks.GOLDEN:
            measured = executor.golden(sae_id, asked.golden[sae_id])
            answers, provenance = comparison.answers(measured.losses, asked.golden[sae_id]), measured.provenance
            readings, off = comparison.readings(answers), [str(a) for a in answers if not a.error <= 1]
        elif check is checks.CBT:
            if asked.plan.cbt is None:
                readings = _not_given(check, "no Children's Book Test was given (--sae-cbt)")
            else:
                chosen = executor.choices(sae_id, together)
                provenance = chosen.provenance
                readings = stats.cbt(chosen.losses, n_listed=provenance.corpus.n_listed)
                n_planned, n_most = options.n_queries, len(chosen.losses.queries)
        elif asked.plan.lambada is None:
            readings = _not_given(check, "no Lambada passages were given (--sae-lambada)")
        else:
            items = executor.items(sae_id, together)
            provenance = items.provenance
            n_training = provenance.sae.n_training_context_tokens
            n_listed = provenance.corpus.n_listed
            readings = stats.lambada(items.losses, n_training_context_tokens=n_training, n_listed=n_listed)
            n_planned, n_most = options.n_items, provenance.corpus.n_sequences
            flips = stats.flips(items.losses, items.texts)
    except errors.SaeChecksError as problem:
        return Result(sae_id=sae_id, check=check.name, outcome="error", reason=str(problem), limit=limit)
    budget = Budget(n_planned=n_planned, n_most=n_most, n_checks=asked.plan.n_checks)
    decided = verdict.judge(readings, limit, budget)
    return Result(
        sae_id=sae_id,
        check=check.name,
        outcome=decided.outcome,
        reason="\n".join([decided.reason, *off]),
        limit=limit,
        estimates=decided.estimates,
        decision=decided.decision,
        curves=drawn,
        flips=flips,
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


def _most_nats(limit: Limit) -> float | None:
    """The increase that *limit* allows; None where it limits something else."""
    return limit.value if (limit.measure, limit.kind) == ("ce_increase", "max") else None
