"""One check of one SAE: losses -> readings -> verdict -> result. Where the two wings meet, through `losses`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sae_checks import checks, errors
from sae_checks.comparing import baseline
from sae_checks.judging import (
    answer_readings,
    changed_answers,
    corpus_readings,
    golden_readings,
    paired_samples,
    position_readings,
    propagation_readings,
    study_readings,
    verdict,
    worst_sequences,
)
from sae_checks.judging.budget import Budget
from sae_checks.judging.estimates import Reading, all_not_measured
from sae_checks.judging.limits import Limit
from sae_checks.losses import ChoiceLosses, ItemLosses, TextLosses, first_sequences
from sae_checks.measuring.local import LocalExecutor
from sae_checks.measuring.local_studies import N_ITEMS_PER_SEQUENCE, Kind, Studied, Wanted
from sae_checks.measuring.measured import Measured
from sae_checks.record.record import Result
from sae_checks.release import release
from sae_checks.release.release import Sae
from sae_checks.run.settle import Cell, Request

Losses = TypeVar("Losses", TextLosses, ItemLosses, ChoiceLosses)

_OF_TEXT: dict[str, Callable[[TextLosses, Sae, Limit, Limit | None], tuple[Reading, ...]]] = {
    checks.CE_LOSS.name: lambda losses, *_: corpus_readings.ce_loss(losses),
    checks.LONG_CONTEXT.name: lambda losses, *_: corpus_readings.long_context(losses),
    checks.USABLE_CONTEXT.name: lambda losses, _, in_context, own: position_readings.usable_context(
        losses, _most_nats(in_context), _least(own)
    ),
    checks.SPARSITY.name: lambda losses, sae, *_: corpus_readings.sparsity(
        losses, recorded_l0=sae.recorded_l0, k=sae.k
    ),
}
"""The last arguments are the SAE's limit within its training context, and the check's own."""


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
    checks.PROPAGATION.name: propagation_readings.propagation,
    checks.NEXT_SAE.name: propagation_readings.next_sae,
    checks.LAST_SAE.name: propagation_readings.last_sae,
    checks.OWN_LAYER.name: study_readings.own_layer,
    checks.RANDOM_ERROR.name: study_readings.random_error,
    checks.STACKED.name: study_readings.stacked,
    checks.STACKED_LAMBADA.name: study_readings.stacked_lambada,
}


def checks_of_one_pass(check: checks.Check) -> frozenset[str]:
    """Names of the checks that the same pass over the same corpus serves."""
    if check.name in STUDIES:
        return frozenset(STUDIES)
    return frozenset(_OF_TEXT) if check.name in _OF_TEXT else frozenset({check.name})


def judge_study(
    executor: LocalExecutor, request: Request, subject: str, check: checks.Check, cells: Collection[Cell]
) -> Result:
    """Measure the study behind *check* of *subject*, an SAE or a stack, with those of *cells*, and judge it."""
    limit = request.limits[subject, check.name]
    found: Studied | None = None
    if (reason := _impossible(request, subject, check.name)) is not None:
        readings = all_not_measured(check, reason)
    else:
        try:
            found = executor.study((STUDIES[check.name], subject), _studied(request, cells))
            readings = _OF_STUDY[check.name](found.losses)
        except errors.SaeChecksError as problem:
            return Result(sae_id=subject, check=check.name, outcome="error", reason=str(problem), limit=limit)
    provenance = None if found is None else found.provenance
    decided = verdict.judge(
        readings, limit, _budget(request, check, 0 if provenance is None else provenance.corpus.n_sequences)
    )
    return Result(
        sae_id=subject,
        check=check.name,
        outcome=decided.outcome,
        reason=decided.reason,
        limit=limit,
        estimates=decided.estimates,
        decision=decided.decision,
        paired_sample=None
        if provenance is None
        else paired_samples.paired_sample(readings, limit, provenance.corpus.fingerprint),
        downstream=propagation_readings.matrix(found.losses)
        if found is not None and check is checks.PROPAGATION
        else (),
        stack_steps=study_readings.stack_steps(found.losses) if found is not None and check.of == "stack" else (),
        provenance=provenance,
    )


def _studied(request: Request, cells: Collection[Cell]) -> list[Wanted]:
    """The studies behind *cells* that can be measured."""
    return [(STUDIES[name], each) for each, name in cells if name in STUDIES and not _impossible(request, each, name)]


def _impossible(request: Request, subject: str, check: str) -> str | None:
    """Why the study *check* of *subject* cannot be measured at all."""
    if (reason := _not_given(request, checks.named(check))) is not None:
        return reason
    return next((stack.problem for stack in request.plan.stacks if stack.stack_id == subject), None)


def judge(
    executor: LocalExecutor, request: Request, sae_id: str, check: checks.Check, cells: Collection[Cell] = ()
) -> Result:
    """
    Measure *sae_id* and judge *check*; what cannot be measured is an error with its reason.

    With it all of *cells* is measured that the same pass serves, and an SAE leaves it when its own are decided.
    """
    if check.name in STUDIES:
        return judge_study(executor, request, sae_id, check, cells)
    limit = request.limits[sae_id, check.name]
    try:
        if check is checks.GOLDEN:
            return _golden(executor, request, sae_id)
        if check is checks.DISTINCT:
            return _distinct(executor, request, sae_id)
        if (reason := _not_given(request, check)) is not None:
            return _judged(request, sae_id, check, all_not_measured(check, reason)).result
        return _sampled(executor, request, (sae_id, check.name), cells)
    except errors.SaeChecksError as problem:
        return Result(sae_id=sae_id, check=check.name, outcome="error", reason=str(problem), limit=limit)


def _sampled(executor: LocalExecutor, request: Request, cell: Cell, cells: Collection[Cell]) -> Result:
    """The verdict on a check whose corpus is measured until it is decided."""
    sae_id, check = cell[0], checks.named(cell[1])
    served = [each for each in (cell, *cells) if each[1] in checks_of_one_pass(check)]
    together = dict.fromkeys(each for each, _ in served)
    if check is checks.LAMBADA:
        items = executor.items(sae_id, together, until_decided(request, served, _of_items))
        return replace(
            _of_items(request, cell, items).result,
            changed_answers=changed_answers.changed_answers(items.losses, items.texts),
        )
    if check is checks.CBT:
        until = until_decided(request, served, _of_choices)
        chosen = executor.choices(sae_id, together, until)
        result = _of_choices(request, cell, chosen).result
        return replace(result, changed_choices=changed_answers.changed_choices(chosen.losses, chosen.choices))
    text = executor.text(sae_id, together, until_decided(request, served, _of_text), _studied(request, cells))
    result = _of_text(request, cell, text).result
    if check is checks.LONG_CONTEXT:
        return replace(result, curves=position_readings.curves(text.losses))
    if check is checks.CE_LOSS:  # of what it is about: within the training context
        n = text.losses.n_training_context_tokens
        increase = text.losses.increase_nats[:, :n]
        found = worst_sequences.worst_sequences(
            increase, text.losses.documents, lambda i: text.tokens_of(i)[: None if n is None else n + 1]
        )
        is_asked = bool(release.matching([sae_id], request.plan.options.explain))
        documents = [each.document for each in found]
        explanation = executor.explain(sae_id, text, documents) if is_asked else None
        return replace(result, worst_sequences=found, explanation=explanation)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A result, and whether it stays if more is measured."""

    result: Result
    is_final: bool


def until_decided(
    request: Request, cells: Collection[Cell], judged: Callable[[Request, Cell, Measured[Losses]], _Judged]
) -> Callable[[str, Measured[Losses]], bool]:
    """
    Whether an SAE goes on: while one of its *cells*, or the comparison of it with the baseline, is open.

    The profile `full` and --sae-calibrate want all of the plan in any case. A first decision is final, so that it does
    not matter how long the others keep an SAE.
    """
    still = {sae_id: [cell for cell in cells if cell[0] == sae_id] for sae_id, _ in cells}
    options = request.plan.options
    whole_plan = options.profile == "full" or options.calibrate is not None

    def is_open(cell: Cell, known: Measured[Losses]) -> bool:
        found = judged(request, cell, known)
        return not found.is_final or _comparison_is_open(request, found.result)

    def goes_on(sae_id: str, known: Measured[Losses]) -> bool:
        if whole_plan and known.n < known.n_planned:
            return True
        still[sae_id] = [cell for cell in still.get(sae_id, ()) if is_open(cell, known)]
        return bool(still[sae_id])

    return goes_on


def _comparison_is_open(request: Request, after: Result) -> bool:
    """There is more in the baseline that would tell."""
    if request.baseline is None or (f"{after.sae_id}-{after.check}", checks.NO_REGRESSION.name) not in request.limits:
        return False
    before = request.baseline.result(after.sae_id, after.check)
    if before is None or before.paired_sample is None or after.paired_sample is None:
        return False
    is_more = after.paired_sample.n < before.paired_sample.n
    return is_more and compare(request, after).outcome == "inconclusive"


def _of_text(request: Request, cell: Cell, text: Measured[TextLosses]) -> _Judged:
    sae_id, check, limit = cell[0], checks.named(cell[1]), request.limits[cell]
    in_context = request.limits[sae_id, checks.CE_LOSS.name]
    assert in_context is not None

    def read(losses: TextLosses) -> tuple[Reading, ...]:
        return _OF_TEXT[check.name](losses, request.plan.release.sae(sae_id), in_context, limit)

    readings = read(text.losses)
    # what is kept is of the plan: so all runs of it can be compared, however far one was extended
    of_plan = readings if text.n <= text.n_planned else read(first_sequences(text.losses, text.n_planned))
    return _judged(
        request,
        sae_id,
        check,
        readings,
        text,
        paired_sample=paired_samples.paired_sample(of_plan, limit, text.fingerprint),
    )


def _of_items(request: Request, cell: Cell, items: Measured[ItemLosses]) -> _Judged:
    assert items.provenance.sae is not None
    readings = answer_readings.lambada(
        items.losses,
        n_training_context_tokens=items.provenance.sae.n_training_context_tokens,
        n_listed=items.provenance.corpus.n_listed,
    )
    sample = paired_samples.paired_sample(readings, request.limits[cell], items.fingerprint)
    return _judged(request, cell[0], checks.LAMBADA, readings, items, paired_sample=sample)


def _of_choices(request: Request, cell: Cell, chosen: Measured[ChoiceLosses]) -> _Judged:
    readings = answer_readings.cbt(chosen.losses, n_listed=chosen.provenance.corpus.n_listed)
    sample = paired_samples.paired_sample(readings, request.limits[cell], chosen.fingerprint)
    return _judged(request, cell[0], checks.CBT, readings, chosen, paired_sample=sample)


def _golden(executor: LocalExecutor, request: Request, sae_id: str) -> Result:
    measured = executor.golden(sae_id, request.golden[sae_id])
    answers = golden_readings.answers(measured.losses, request.golden[sae_id])
    found = _judged(request, sae_id, checks.GOLDEN, golden_readings.readings(answers), measured).result
    return replace(found, reason="\n".join([found.reason, *(str(a) for a in answers if not a.error <= 1)]))


def _distinct(executor: LocalExecutor, request: Request, sae_id: str) -> Result:
    copies = executor.copies(sae_id)
    found = _judged(request, sae_id, checks.DISTINCT, corpus_readings.distinct(len(copies))).result
    return replace(found, reason="\n".join([found.reason, *(f"  the same weights as {each}" for each in copies)]))


def _judged(
    request: Request,
    sae_id: str,
    check: checks.Check,
    readings: tuple[Reading, ...],
    of: Measured[Any] | None = None,  # Any: the readings are made of it already
    **more: Any,  # fields of Result
) -> _Judged:
    limit = request.limits[sae_id, check.name]
    decided = verdict.judge(readings, limit, _budget(request, check, 0 if of is None else of.n_most))
    result = Result(
        sae_id=sae_id,
        check=check.name,
        outcome=decided.outcome,
        reason=decided.reason,
        limit=limit,
        estimates=decided.estimates,
        decision=decided.decision,
        provenance=None if of is None else of.provenance,
        **more,
    )
    return _Judged(result=result, is_final=decided.is_final)


def compare(request: Request, after: Result) -> Result:
    """*after* against the baseline."""
    assert request.baseline is not None
    limit = request.limits[f"{after.sae_id}-{after.check}", checks.NO_REGRESSION.name]
    assert limit is not None
    plan = request.plan
    now = baseline.Conditions(special_tokens=plan.options.special_tokens, sae_ids=plan.release.sae_ids)
    return baseline.compare(after, request.baseline, limit, now, _budget(request, checks.named(after.check), 0))


def _budget(request: Request, check: checks.Check, n_most: int) -> Budget:
    """What the verdict on *check* may spend: so many sequences, passages or queries, of *n_most* that there are."""
    options = request.plan.options
    n_planned = options.n_study_sequences if check.name in STUDIES else options.n_sequences
    if check is checks.STACKED_LAMBADA:
        n_planned *= N_ITEMS_PER_SEQUENCE
    elif check is checks.LAMBADA:
        n_planned = options.n_items
    elif check is checks.CBT:
        n_planned = options.n_queries
    return Budget(n_planned=n_planned, n_most=n_most, n_checks=request.plan.n_checks)


def _not_given(request: Request, check: checks.Check) -> str | None:
    """Why there is nothing to measure *check* on."""
    if check is checks.CBT and request.plan.cbt is None:
        return "no Children's Book Test was given (--sae-cbt)"
    if check in (checks.LAMBADA, checks.STACKED_LAMBADA) and request.plan.lambada is None:
        return "no Lambada passages were given (--sae-lambada)"
    return None


def _most_nats(limit: Limit) -> float | None:
    """The increase that *limit* allows; None where it limits something else."""
    return limit.value if (limit.measure, limit.kind) == ("ce_increase", "max") else None


def _least(limit: Limit | None) -> float | None:
    """The usable context that *limit* asks for, if that is what it does."""
    asks = limit is not None and (limit.measure, limit.kind) == ("usable_context", "min")
    return limit.value if asks and limit is not None else None
