"""`Record` <-> `Document`: what a run found, and the rows of its file. Facts that results share are written once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sae_checks import checks
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio, PairedSample
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.sequential import Decision
from sae_checks.judging.study_readings import StackStep
from sae_checks.judging.verdict import JudgedLimit
from sae_checks.provenance import CorpusFacts, ModelFacts, Package, Provenance, SaeFacts
from sae_checks.record.document import (
    SCHEMA,
    CurveRow,
    DecisionRow,
    Document,
    EstimateRow,
    LimitRow,
    PairedAnswersRow,
    PairedRatioRow,
    ReleaseRow,
    ResultRow,
    StackStepRow,
)
from sae_checks.record.results import Record, ReleaseFacts, Result

_FLOAT32, _INT8 = "<f4", "<i1"
_OF_SAE = {check.name for check in (*checks.CHECKS, checks.NO_REGRESSION) if check.of == "sae"}

T = TypeVar("T")


class BadRowError(ValueError):
    """A row that its types allow and that makes no sense; says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What results refer to."""

    saes: Mapping[str, SaeFacts]
    models: tuple[ModelFacts, ...]
    corpora: tuple[CorpusFacts, ...]


def to_document(record: Record) -> Document:
    """*record* as the rows of its file."""
    found = [result.provenance for result in record.results if result.provenance is not None]
    facts = _Facts(
        saes={each.sae.sae_id: each.sae for each in found if each.sae is not None},
        models=_once(each.model for each in found),
        corpora=_once(each.corpus for each in found),
    )
    release = record.release
    return Document(
        schema=SCHEMA,
        started=record.started,
        wall_s=record.wall_s,
        exit_status=record.exit_status,
        verdict=record.verdict,
        release=ReleaseRow(
            name=release.name,
            source=release.source,
            revision=release.revision,
            sae_ids=release.sae_ids,
            saes=tuple(facts.saes.values()),
        ),
        models=facts.models,
        corpora=facts.corpora,
        options=dict(record.options),
        software={package.name: package.version for package in record.software},
        platform=record.platform,
        results=tuple(_result_row(result, facts) for result in record.results),
    )


def to_record(document: Document) -> Record:
    """
    The record whose rows *document* holds.

    Raises:
        BadRowError: an index points nowhere, columns differ in length, or a sample is none.
    """
    release = document.release
    facts = _Facts(saes={sae.sae_id: sae for sae in release.saes}, models=document.models, corpora=document.corpora)
    return Record(
        started=document.started,
        wall_s=document.wall_s,
        release=ReleaseFacts(
            name=release.name, source=release.source, revision=release.revision, sae_ids=release.sae_ids
        ),
        options=tuple(document.options.items()),
        software=tuple(Package(name=name, version=version) for name, version in document.software.items()),
        platform=document.platform,
        results=tuple(_result(row, facts) for row in document.results),
        exit_status=document.exit_status,
    )


def _result_row(result: Result, facts: _Facts) -> ResultRow:
    made_of = result.provenance
    return ResultRow(
        sae_id=result.sae_id,
        check=result.check,
        outcome=result.outcome,
        reason=result.reason,
        limits=tuple(_limit_rows(result)),
        estimates=_estimate_rows(result.estimates),
        judged=result.judged,
        accepted=result.accepted,
        model_index=None if made_of is None else facts.models.index(made_of.model),
        corpus_index=None if made_of is None else facts.corpora.index(made_of.corpus),
        paired_sample=None if result.paired_sample is None else _paired_row(result.paired_sample),
        curves={curve.measure: _curve_row(curve) for curve in result.curves},
        changed_answers=result.changed_answers,
        changed_choices=result.changed_choices,
        worst_sequences=result.worst_sequences,
        explanation=result.explanation,
        diagnosis=result.diagnosis,
        downstream=result.downstream,
        stack_steps=tuple(
            StackStepRow(sae_id=step.sae_id, estimates=_estimate_rows(step.estimates)) for step in result.stack_steps
        ),
    )


def _result(row: ResultRow, facts: _Facts) -> Result:
    limit, *others = row.limits or (None,)
    for each in row.worst_sequences:
        if len(each.tokens) != len(each.increase_nats):
            raise BadRowError("the tokens of a worst sequence and their increases are not of one length")
    return Result(
        sae_id=row.sae_id,
        check=row.check,
        outcome=row.outcome,
        reason=row.reason,
        limit=None if limit is None else _limit(row.check, limit),
        other_limits=tuple(_judged_limit(row, other) for other in others if other is not None),
        judged=row.judged,
        accepted=row.accepted,
        estimates=_estimates(row.estimates),
        decision=None if limit is None or limit.decision is None else _decision(row.outcome, limit.decision),
        paired_sample=None if row.paired_sample is None else _paired(row.paired_sample),
        curves=tuple(_curve(measure, columns) for measure, columns in row.curves.items()),
        changed_answers=row.changed_answers,
        changed_choices=row.changed_choices,
        worst_sequences=row.worst_sequences,
        explanation=row.explanation,
        diagnosis=row.diagnosis,
        downstream=row.downstream,
        stack_steps=tuple(
            StackStep(sae_id=step.sae_id, estimates=_estimates(step.estimates)) for step in row.stack_steps
        ),
        provenance=_provenance(row, facts),
    )


def _provenance(row: ResultRow, facts: _Facts) -> Provenance | None:
    if row.model_index is None and row.corpus_index is None:
        return None
    is_of_sae = row.check in _OF_SAE
    has_model = row.model_index is not None and row.model_index < len(facts.models)
    has_corpus = row.corpus_index is not None and row.corpus_index < len(facts.corpora)
    if not (has_model and has_corpus) or (is_of_sae and row.sae_id not in facts.saes):
        raise BadRowError(f"{row.check} of {row.sae_id} refers to an SAE, model or corpus that is not there")
    assert row.model_index is not None
    assert row.corpus_index is not None
    return Provenance(
        sae=facts.saes[row.sae_id] if is_of_sae else None,
        model=facts.models[row.model_index],
        corpus=facts.corpora[row.corpus_index],
    )


def _limit_rows(result: Result) -> Iterator[LimitRow]:
    if result.limit is not None:
        yield _limit_row(JudgedLimit(limit=result.limit, outcome=result.outcome, decision=result.decision))
    yield from map(_limit_row, result.other_limits)


def _judged_limit(of: ResultRow, row: LimitRow) -> JudgedLimit:
    outcome = row.outcome or of.outcome
    return JudgedLimit(
        limit=_limit(of.check, row),
        outcome=outcome,
        reason=row.reason,
        judged=row.judged,
        decision=None if row.decision is None else _decision(outcome, row.decision),
    )


def _limit_row(of: JudgedLimit) -> LimitRow:
    limit = of.limit
    return LimitRow(
        measure=limit.measure,
        min=limit.value if limit.kind == "min" else limit.floor,
        max=limit.value if limit.kind == "max" else None,
        unit=limit.unit,
        source=limit.source,
        where=limit.where,
        decision=None if of.decision is None else _decision_row(of.decision),
        worst=limit.worst,
        outcome=of.outcome,
        reason=of.reason,
        judged=of.judged,
    )


def _limit(check: str, row: LimitRow) -> Limit:
    value = row.min if row.max is None else row.max
    if value is None:
        raise BadRowError(f"the limit on {row.measure} has neither min nor max")
    return Limit(
        check=check,
        measure=row.measure,
        kind="min" if row.max is None else "max",
        value=value,
        floor=None if row.max is None else row.min,
        unit=row.unit,
        source=row.source,
        where=row.where,
        worst=row.worst,
    )


def _decision_row(decision: Decision) -> DecisionRow:
    return DecisionRow(**{name: getattr(decision, name) for name in DecisionRow.__struct_fields__})


def _decision(outcome: Any, row: DecisionRow) -> Decision:  # Any: Result's outcomes, of which a decision has three
    return Decision(outcome=outcome, **{name: getattr(row, name) for name in DecisionRow.__struct_fields__})


def _estimate_rows(estimates: Iterable[Estimate]) -> dict[str, EstimateRow]:
    return {e.measure: EstimateRow(value=e.value, low=e.low, high=e.high, unit=e.unit, n=e.n) for e in estimates}


def _estimates(rows: Mapping[str, EstimateRow]) -> tuple[Estimate, ...]:
    return tuple(
        Estimate(measure=measure, value=row.value, low=row.low, high=row.high, unit=row.unit, n=row.n)
        for measure, row in rows.items()
    )


def _curve_row(curve: Curve) -> CurveRow:
    value, low, high = (tuple(float(f"{x:.6g}") for x in column) for column in (curve.value, curve.low, curve.high))
    return CurveRow(
        unit=curve.unit, position=curve.position, value=value, low=low, high=high, n_sequences=curve.n_sequences
    )


def _curve(measure: str, row: CurveRow) -> Curve:
    if len({len(column) for column in (row.position, row.value, row.low, row.high, row.n_sequences)}) != 1:
        raise BadRowError(f"the columns of the curve {measure} are not of one length")
    return Curve(
        measure=measure,
        unit=row.unit,
        position=row.position,
        value=row.value,
        low=row.low,
        high=row.high,
        n_sequences=row.n_sequences,
    )


def _paired_row(sample: PairedSample) -> PairedRatioRow | PairedAnswersRow:
    if isinstance(sample, PairedAnswers):
        return PairedAnswersRow(
            measure=sample.measure,
            measures_version=sample.measures_version,
            fingerprint=sample.fingerprint,
            answers=np.array(sample.answers, dtype=_INT8).tobytes(),
            n_listed=sample.n_listed,
        )
    return PairedRatioRow(
        measure=sample.measure,
        measures_version=sample.measures_version,
        fingerprint=sample.fingerprint,
        numerators=np.array(sample.numerators, dtype=_FLOAT32).tobytes(),
        denominators=np.array(sample.denominators, dtype=_FLOAT32).tobytes(),
        ideal_value=sample.ideal_value,
        largest_denominator=sample.largest_denominator,
    )


def _paired(row: PairedRatioRow | PairedAnswersRow) -> PairedSample:
    if isinstance(row, PairedAnswersRow):
        answers = tuple(np.frombuffer(row.answers, dtype=_INT8).tolist())
        if not set(answers) <= {-1, 0, 1}:
            raise BadRowError(f"an answer of the sample of {row.measure} is none of -1, 0 and 1")
        return PairedAnswers(
            measure=row.measure,
            measures_version=row.measures_version,
            fingerprint=row.fingerprint,
            answers=answers,
            n_listed=row.n_listed,
        )
    if len(row.numerators) != len(row.denominators) or len(row.numerators) % 4:
        raise BadRowError(f"the columns of the sample of {row.measure} are not float32 of one length")
    numerators, denominators = (
        tuple(np.frombuffer(column, dtype=_FLOAT32).tolist()) for column in (row.numerators, row.denominators)
    )
    if not all(map(math.isfinite, (*numerators, *denominators))) or math.fsum(denominators) <= 0:
        raise BadRowError(f"the sample of {row.measure} is not a ratio of sums")
    return PairedRatio(
        measure=row.measure,
        measures_version=row.measures_version,
        fingerprint=row.fingerprint,
        numerators=numerators,
        denominators=denominators,
        ideal_value=row.ideal_value,
        largest_denominator=row.largest_denominator,
    )


def _once(facts: Iterable[T]) -> tuple[T, ...]:
    """Each distinct entry, in order of first appearance."""
    return tuple(dict.fromkeys(facts))
