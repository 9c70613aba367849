"""A record -> the contents of a report: the verdict, the reasons for it, each SAE, and the provenance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sae_checks import checks, errors
from sae_checks.explanation import Explanation
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, SaeFacts
from sae_checks.record.results import Record, Result
from sae_checks.report import figures, wording
from sae_checks.report.plots import DotPlot, LinePlot, MatrixPlot

RED = ("error", "failed", "inconclusive")
"""Outcomes that stop a release, the gravest first."""

VerdictWord = Literal["passed", "failed", "undecided", "partial"]
"""partial: everything that was selected passed."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on a run."""

    word: VerdictWord
    sentence: str
    reasons: tuple[Subject, ...]
    """subjects with red checks, those with most first."""
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
    return Contents(
        run=run,
        verdict=_verdict(run, (*saes, *stacks, *comparisons)),
        checks=tuple(c for c in checks.CHECKS if c.of == "sae" and any(r.check == c.name for r in run.results)),
        saes=saes,
        stacks=stacks,
        comparisons=comparisons,
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
    """
    The verdict on *run*: failed if a check is red, passed only if every SAE has a verdict.

    Like the run's exit status: in the smoke profile an inconclusive check is neither red nor a verdict, `distinct`
    is no verdict on an SAE, and a run with a baseline passes only if a comparison was decided.
    """
    is_smoke = dict(run.options).get("profile") == "smoke"
    stops = RED[:2] if is_smoke else RED
    stopping = [subject for subject in subjects if any(r.outcome in stops for r in subject.results)]
    decided = [r for r in run.results if r.outcome in ("passed", *stops) and r.check != checks.DISTINCT.name]
    open_saes = [sae_id for sae_id in run.release.sae_ids if sae_id not in {r.sae_id for r in decided}]
    n_left_out = sum(map(_is_left_out, run.results))
    n_saes, counts = len(run.release.sae_ids), _outcome_counts(run.results)
    word: VerdictWord = "passed"
    sentence = f"All {n_saes} SAEs within limits: {counts}."
    if stopping:
        word, sentence = "failed", f"{_subject_counts(stopping, n_saes)} not within limits: {counts}."
    elif open_saes or not decided:
        word, sentence = "undecided", f"No verdict on {len(open_saes)} of {n_saes} SAEs: {counts}."
    elif not _is_compared(run, decided):
        word, sentence = "undecided", f"Nothing was compared with the baseline: {counts}."
    elif n_left_out:
        word, sentence = "partial", f"All {n_saes} SAEs within the limits that were checked: {counts}."
    return Verdict(
        word=word,
        sentence=sentence,
        reasons=tuple(sorted((s for s in subjects if s.red), key=lambda s: -len(s.red))),
        notes=tuple(_notes(is_smoke=is_smoke, open_saes=open_saes, n_left_out=n_left_out)),
    )


def _is_left_out(result: Result) -> bool:
    """Whether the check was deselected, by `-k` or the like, or the run ended before it."""
    return result.outcome == "not_measured" and result.reason.startswith(("not selected", "not reached"))


def _is_compared(run: Record, decided: Sequence[Result]) -> bool:
    """Whether the run has no baseline, or has a verdict on at least one comparison with it."""
    if dict(run.options).get("baseline") is None:
        return True
    comparisons = [r for r in run.results if r.check == checks.NO_REGRESSION.name]
    are_left_out = bool(comparisons) and all(map(_is_left_out, comparisons))
    return are_left_out or any(r.check == checks.NO_REGRESSION.name for r in decided)


def _subject_counts(subjects: Sequence[Subject], n_saes: int) -> str:
    """`2 of 5 SAEs and 1 stack`."""
    n_of_saes = sum(subject.anchor.startswith("sae-") for subject in subjects)
    parts = [f"{n_of_saes} of {n_saes} SAEs"] if n_of_saes else []
    for kind in ("stack", "comparison"):
        n = sum(subject.anchor.startswith(f"{kind}-") for subject in subjects)
        parts += [f"{n} {kind}{'s' if n > 1 else ''}"] if n else []
    return " and ".join(parts)


def _outcome_counts(results: Sequence[Result]) -> str:
    in_order = (*RED, *(outcome for outcome in wording.OUTCOMES if outcome not in RED))
    counts = {outcome: sum(r.outcome == outcome for r in results) for outcome in in_order}
    return ", ".join(f"{n} {wording.OUTCOMES[outcome][1]}" for outcome, n in counts.items() if n) or "no checks"


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
