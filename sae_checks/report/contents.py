"""A record -> the contents of a report: the verdict, the reasons for it, each SAE, and the provenance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sae_checks import checks, errors
from sae_checks.explanation import Explanation
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, SaeFacts
from sae_checks.record import run_verdict
from sae_checks.record.results import Record, Result
from sae_checks.report import figures, overview, tradeoff, wording
from sae_checks.report.plots import DotPlot, LinePlot, MatrixPlot, ScatterPlot

RED = ("error", "failed", "inconclusive")
"""Outcomes that stop a release, the gravest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An SAE, a stack or a comparison with the baseline, with the results of all its checks."""

    anchor: str
    """HTML id, unique in the report. WHY not the name: the release chooses it."""
    name: str
    results: tuple[Result, ...]
    facts: SaeFacts | None
    plots: tuple[LinePlot, ...] = ()
    changed_answers: tuple[ChangedAnswer, ...] = ()
    changed_choices: tuple[ChangedChoice, ...] = ()
    worst_sequences: tuple[WorstSequence, ...] = ()
    explanation: Explanation | None = None

    @property
    def n_training(self) -> int | None:
        """Tokens of its training context; None: unknown, or not an SAE."""
        return None if self.facts is None else self.facts.n_training_context_tokens

    @property
    def red(self) -> tuple[Result, ...]:
        """The results that are not green, the gravest first."""
        return tuple(sorted((r for r in self.results if r.outcome in RED), key=lambda r: RED.index(r.outcome)))

    @property
    def n_failed(self) -> int:
        """Checks that failed or broke off."""
        return sum(result.outcome in ("error", "failed") for result in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on a run."""

    word: run_verdict.Word
    sentence: str
    reasons: tuple[Subject, ...]
    """subjects with red checks, those with most failures first."""
    notes: tuple[str, ...]
    """what the run did not check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that a report shows."""

    run: Record
    verdict: Verdict
    checks: tuple[checks.Check, ...]
    """of single SAEs, as far as the run has results of them."""
    saes: tuple[Subject, ...]
    stacks: tuple[Subject, ...]
    comparisons: tuple[Subject, ...]
    facts: tuple[tuple[str, str], ...]
    """what was judged, as (label, text)."""
    tradeoff: tuple[tradeoff.Row, ...]
    scatters: tuple[ScatterPlot, ...]
    profiles: tuple[DotPlot, ...]
    matrices: tuple[MatrixPlot, ...]
    stacked: tuple[DotPlot, ...]
    models: tuple[ModelFacts, ...]
    corpora: tuple[CorpusFacts, ...]
    files: tuple[tuple[str, FileHash], ...]
    """(model or SAE, one file of its weights)."""


def build(run: Record) -> Contents:
    """
    Build the contents of the report on *run*.

    Raises:
        RecordError: the record has a check that this version does not know.
    """
    known = {check.name for check in (*checks.CHECKS, checks.NO_REGRESSION)}
    if unknown := sorted({result.check for result in run.results} - known):
        raise errors.bad_record("record", f"this version does not know the check {unknown[0]}")
    saes, stacks, comparisons = (_subjects(run, kind) for kind in ("sae", "stack", "comparison"))
    provenances = [result.provenance for result in run.results if result.provenance is not None]
    models = tuple(dict.fromkeys(provenance.model for provenance in provenances))
    sparse = tradeoff.rows(run)
    return Contents(
        run=run,
        verdict=_verdict(run, (*saes, *stacks, *comparisons)),
        checks=tuple(c for c in checks.CHECKS if c.of == "sae" and any(r.check == c.name for r in run.results)),
        saes=saes,
        stacks=stacks,
        comparisons=comparisons,
        facts=overview.facts(run),
        tradeoff=sparse,
        scatters=tradeoff.plots(sparse),
        profiles=figures.profile_plots(run),
        matrices=figures.propagation_plots(run),
        stacked=tuple(figures.stack_plots(run)),
        models=models,
        corpora=tuple(dict.fromkeys(provenance.corpus for provenance in provenances)),
        files=tuple(_files(models, saes)),
    )


def _files(models: Iterable[ModelFacts], saes: Iterable[Subject]) -> Iterable[tuple[str, FileHash]]:
    yield from ((model.source, file) for model in models for file in model.weights)
    yield from ((sae.name, file) for sae in saes if sae.facts is not None for file in sae.facts.weights)


def _subjects(run: Record, kind: str) -> tuple[Subject, ...]:
    found: dict[str, list[Result]] = {}
    for result in run.results:
        if checks.named(result.check).of == kind:
            found.setdefault(result.sae_id, []).append(result)
    return tuple(_subject(f"{kind}-{i}", name, rows) for i, (name, rows) in enumerate(found.items()))


def _subject(anchor: str, name: str, results: Sequence[Result]) -> Subject:
    return Subject(
        anchor=anchor,
        name=name,
        results=tuple(results),
        facts=next((r.provenance.sae for r in results if r.provenance is not None and r.provenance.sae), None),
        plots=figures.position_plots(results, anchor),
        changed_answers=tuple(each for result in results for each in result.changed_answers),
        changed_choices=tuple(each for result in results for each in result.changed_choices),
        worst_sequences=tuple(each for result in results for each in result.worst_sequences),
        explanation=next((r.explanation for r in results if r.explanation is not None), None),
    )


def _verdict(run: Record, subjects: Sequence[Subject]) -> Verdict:
    judged = {r.sae_id for r in run.results if run_verdict.is_verdict(r)}
    return Verdict(
        word=run.verdict,
        sentence=overview.sentence(run),
        reasons=tuple(sorted((s for s in subjects if s.red), key=lambda s: (-s.n_failed, -len(s.red)))),
        notes=tuple(
            _notes(
                is_smoke=dict(run.options).get("profile") == "smoke",
                open_saes=[sae_id for sae_id in run.release.sae_ids if sae_id not in judged],
                n_left_out=sum(map(_is_left_out, run.results)),
            )
        ),
    )


def _is_left_out(result: Result) -> bool:
    """Whether the check was deselected, by `-k` or the like, or the run ended before it."""
    return result.outcome == "not_measured" and result.reason.startswith(("not selected", "not reached"))


def _notes(*, is_smoke: bool, open_saes: Sequence[str], n_left_out: int) -> Iterable[str]:
    if open_saes:
        yield f"Without a verdict: {', '.join(wording.text(sae_id) for sae_id in open_saes)}."
    if n_left_out:
        yield f"Checks that were not selected or not reached: {n_left_out}."
    if is_smoke:
        yield (
            "Smoke profile: it reads a quarter of the text, and inconclusive checks only warn. It is no basis for a "
            "release."
        )
