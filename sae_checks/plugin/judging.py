"""One check of one SAE: losses -> readings -> verdict -> result. Where the two wings meet, through `losses`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

from sae_checks import baseline, checks, comparison, curves, downstream, errors, kept, stats, verdict
from sae_checks.curves import Curve
from sae_checks.executors.local import LocalExecutor, Measured
from sae_checks.executors.studies import N_ITEMS_PER_SEQUENCE, Kind, Studied
from sae_checks.kept import Kept
from sae_checks.losses import TextLosses
from sae_checks.plugin.state import Asked, Cell
from sae_checks.provenance import Provenance
from sae_checks.record import Result
from sae_checks.release import Sae
from sae_checks.sequential import Budget
from sae_checks.stats import Flip, NotMeasured, Reading
from sae_checks.thresholds import Limit

_OF_TEXT: dict[str, Callable[[TextLosses, Sae, Limit], tuple[Reading, ...]]] = {
    checks.CE_LOSS.name: lambda losses, *_: stats.ce_loss(losses),
    checks.LONG_CONTEXT.name: lambda losses, *_: stats.long_context(losses),
    checks.USABLE_CONTEXT.name: lambda losses, _, in_context: curves.usable_context(losses, _most_nats(in_context)),
    checks.SPARSITY.name: lambda losses, sae, _: stats.sparsity(losses, recorded_l0=sae.recorded_l0, k=sae.k),
}
"""The last argument is the SAE's limit within its training context."""


STUDIES: dict[str, Kind] = {
    checks.PROPAGATION.name: "propagation",
    checks.NEXT_SAE.name: "propagation",
    checks.LAST_SAE.name: "propagation",
    checks.OWN_LAYER.name: "own_layer",
    checks.RANDOM_ERROR.name: "random_error",
    checks.STACKED.name: "stacked",
    checks.STACKED_LAMBADA.name: "stacked_lambada",
}
_OF_STUDY: dict[str, Callable[[Any], tuple[Reading, ...]]] = {  # Any: the losses of the study that STUDIES names
    checks.PROPAGATION.name: downstream.propagation,
    checks.NEXT_SAE.name: downstream.next_sae,
    checks.LAST_SAE.name: downstream.last_sae,
    checks.OWN_LAYER.name: downstream.own_layer,
    checks.RANDOM_ERROR.name: downstream.random_error,
    checks.STACKED.name: downstream.stacked,
    checks.STACKED_LAMBADA.name: downstream.stacked_lambada,
}


def checks_of_one_pass(check: checks.Check) -> frozenset[str]:
    """Names of the checks that the same pass over the same corpus serves."""
    if check.name in STUDIES:
        return frozenset(STUDIES)
    return frozenset(_OF_TEXT) if check.name in _OF_TEXT else frozenset({check.name})


def judge_study(
    executor: LocalExecutor, asked: Asked, subject: str, check: checks.Check, cells: Collection[Cell]
) -> Result:
    """Measure the study behind *check* of *subject*, an SAE or a stack, with those of *cells*, and judge it."""
    limit = asked.limits[subject, check.name]
    found: Studied | None = None
    together = [(STUDIES[name], each) for each, name in cells if _impossible(asked, each, name) is None]
    if (reason := _impossible(asked, subject, check.name)) is not None:
        readings = _not_given(check, reason)
    else:
        try:
            found = executor.study((STUDIES[check.name], subject), together)
            readings = _OF_STUDY[check.name](found.losses)
        except errors.SaeChecksError as problem:
            return Result(sae_id=subject, check=check.name, outcome="error", reason=str(problem), limit=limit)
    provenance = None if found is None else found.provenance
    decided = verdict.judge(readings, limit, _budget(asked, check, provenance))
    return Result(
        sae_id=subject,
        check=check.name,
        outcome=decided.outcome,
        reason=decided.reason,
        limit=limit,
        estimates=decided.estimates,
        decision=decided.decision,
        sample=_kept(readings, limit, provenance),
        downstream=downstream.matrix(found.losses) if found is not None and check is checks.PROPAGATION else (),
        steps=downstream.steps(found.losses) if found is not None and check.of == "stack" else (),
        provenance=provenance,
    )


def _impossible(asked: Asked, subject: str, check: str) -> str | None:
    """Why *check* of *subject* cannot be measured at all."""
    if check == checks.STACKED_LAMBADA.name and asked.plan.lambada is None:
        return "no Lambada passages were given (--sae-lambada)"
    return next((stack.problem for stack in asked.plan.stacks if stack.stack_id == subject), None)


def judge(executor: LocalExecutor, asked: Asked, sae_id: str, check: checks.Check, together: Collection[str]) -> Result:
    """Measure *sae_id* (with *together*) and judge *check*; what cannot be measured is an error with its reason."""
    if check.name in STUDIES:
        return judge_study(executor, asked, sae_id, check, [(each, check.name) for each in together])
    limit = asked.limits[sae_id, check.name]
    provenance: Provenance | None = None
    drawn: tuple[Curve, ...] = ()
    flips: tuple[Flip, ...] = ()
    off: list[str] = []
    n_queries: int | None = None
    sample: Kept | None = None  # of text: before it is extended, so that all runs of a plan can be compared
    try:
        if check.name in _OF_TEXT:
            text = executor.text(sae_id, together)
            readings, provenance = _of_text(asked, sae_id, check, text), text.provenance
            sample = _kept(readings, limit, provenance)
            judged = verdict.judge(readings, limit, _budget(asked, check, provenance))
            if judged.outcome == "inconclusive" and asked.plan.options.n_most_sequences is not None:
                text = executor.more_text(sae_id)
                readings, provenance = _of_text(asked, sae_id, check, text), text.provenance
            drawn = curves.curves(text.losses) if check is checks.LONG_CONTEXT else ()
        elif check is checks.GOLDEN:
            measured = executor.golden(sae_id, asked.golden[sae_id])
            answers, provenance = comparison.answers(measured.losses, asked.golden[sae_id]), measured.provenance
            readings, off = comparison.readings(answers), [str(a) for a in answers if not a.error <= 1]
        elif check is checks.DISTINCT:
            copies = executor.copies(sae_id)
            readings, off = stats.distinct(len(copies)), [f"  the same weights as {other}" for other in copies]
        elif check is checks.CBT:
            if asked.plan.cbt is None:
                readings = _not_given(check, "no Children's Book Test was given (--sae-cbt)")
            else:
                chosen = executor.choices(sae_id, together)
                provenance = chosen.provenance
                readings = stats.cbt(chosen.losses, n_listed=provenance.corpus.n_listed)
                n_queries = len(chosen.losses.queries)
        elif asked.plan.lambada is None:
            readings = _not_given(check, "no Lambada passages were given (--sae-lambada)")
        else:
            items = executor.items(sae_id, together)
            provenance = items.provenance
            assert provenance.sae is not None
            n_training = provenance.sae.n_training_context_tokens
            n_listed = provenance.corpus.n_listed
            readings = stats.lambada(items.losses, n_training_context_tokens=n_training, n_listed=n_listed)
            flips = stats.flips(items.losses, items.texts)
    except errors.SaeChecksError as problem:
        return Result(sae_id=sae_id, check=check.name, outcome="error", reason=str(problem), limit=limit)
    decided = verdict.judge(readings, limit, _budget(asked, check, provenance, n_queries))
    return Result(
        sae_id=sae_id,
        check=check.name,
        outcome=decided.outcome,
        reason="\n".join([decided.reason, *off]),
        limit=limit,
        estimates=decided.estimates,
        decision=decided.decision,
        sample=sample if sample is not None else _kept(readings, limit, provenance),
        curves=drawn,
        flips=flips,
        provenance=provenance,
    )


def _kept(readings: tuple[Reading, ...], limit: Limit | None, provenance: Provenance | None) -> Kept | None:
    return None if provenance is None else kept.keep(readings, limit, provenance.corpus.fingerprint)


def compare(asked: Asked, after: Result) -> Result:
    """*after* against the baseline."""
    assert asked.baseline is not None
    limit = asked.limits[f"{after.sae_id}-{after.check}", checks.NO_REGRESSION.name]
    assert limit is not None
    plan = asked.plan
    now = baseline.Conditions(special_tokens=plan.options.special_tokens, sae_ids=plan.release.sae_ids)
    budget = _budget(asked, checks.named(after.check), after.provenance)
    return baseline.compare(after, asked.baseline, limit, now, budget)


def _of_text(asked: Asked, sae_id: str, check: checks.Check, text: Measured[TextLosses]) -> tuple[Reading, ...]:
    in_context = asked.limits[sae_id, checks.CE_LOSS.name]
    assert in_context is not None
    return _OF_TEXT[check.name](text.losses, asked.plan.release.sae(sae_id), in_context)


def _budget(asked: Asked, check: checks.Check, provenance: Provenance | None, n_queries: int | None = None) -> Budget:
    """
    What the verdict on *check* may spend: so many sequences, passages or queries.

    Each query is as many sequences as it has options, so that *n_queries* are given.
    """
    options = asked.plan.options
    n_planned = options.n_study_sequences if check.name in STUDIES else options.n_sequences
    if check is checks.STACKED_LAMBADA:
        n_planned *= N_ITEMS_PER_SEQUENCE
    elif check is checks.LAMBADA:
        n_planned = options.n_items
    elif check is checks.CBT:
        n_planned = options.n_queries
    n_measured = 0 if provenance is None else provenance.corpus.n_sequences
    n_most = n_measured if n_queries is None else n_queries
    return Budget(n_planned=n_planned, n_most=n_most, n_checks=asked.plan.n_checks)


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
            *((f"limit.{end.kind}", end.value) for end in result.limit.sides),
            ("limit.unit", result.limit.unit),
            ("limit.source", result.limit.source),
            ("limit.where", result.limit.where),
        ]
    if result.decision is not None:
        numbers = asdict(result.decision)
        found += [("decided_at", numbers.pop("n_used"))]
        found += [(f"decision.{name}", number) for name, number in numbers.items() if number is not None]
    for e in result.estimates:
        found += [(e.measure, e.value), (f"{e.measure}.low", e.low), (f"{e.measure}.high", e.high)]
        found += [(f"{e.measure}.unit", e.unit), (f"{e.measure}.n", e.n)]
    return found


def _not_given(check: checks.Check, reason: str) -> tuple[Reading, ...]:
    return tuple(NotMeasured(measure=m.name, reason=reason) for m in check.measures)


def _most_nats(limit: Limit) -> float | None:
    """The increase that *limit* allows; None where it limits something else."""
    return limit.value if (limit.measure, limit.kind) == ("ce_increase", "max") else None
