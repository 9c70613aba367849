"""A record -> what a report says, in the order in which it says it: the verdict, why, each SAE, made of what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sae_checks import checks, errors
from sae_checks.explanation import Explanation
from sae_checks.judging.changed_answers import ChoiceFlip, Flip
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, SaeFacts
from sae_checks.record.record import Record, Result
from sae_checks.report import figures, wording
from sae_checks.report.plots import Dots, Lines, Matrix

RED = ("error", "failed", "inconclusive")
"""Outcomes that stop a release, the gravest first."""


Word = Literal["passed", "failed", "undecided", "partial"]
"""Of the whole run; partial: green, as far as it went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An SAE, a stack, or what was compared with the baseline, and all that was asked of it."""

    anchor: str
    """unique in the report, of plain letters: names are strangers'."""
    name: str
    results: tuple[Result, ...]
    facts: SaeFacts | None
    plots: tuple[Lines, ...] = ()
    flips: tuple[Flip, ...] = ()
    choice_flips: tuple[ChoiceFlip, ...] = ()
    worst: tuple[WorstSequence, ...] = ()
    explanation: Explanation | None = None

    @property
    def n_training(self) -> int | None:
        """Tokens of its training context; None: unknown, or it is no single SAE."""
        return None if self.facts is None else self.facts.n_training_context_tokens

    @property
    def red(self) -> tuple[Result, ...]:
        """What is not green, the gravest first."""
        return tuple(sorted((r for r in self.results if r.outcome in RED), key=lambda r: RED.index(r.outcome)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The whole run in a word and a sentence."""

    word: Word
    sentence: str
    reasons: tuple[Subject, ...]
    """what is red, the one with most red checks first."""
    notes: tuple[str, ...]
    """what a green run did not look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that a report shows."""

    run: Record
    verdict: Verdict
    checks: tuple[checks.Check, ...]
    """that were asked of single SAEs."""
    saes: tuple[Subject, ...]
    stacks: tuple[Subject, ...]
    comparisons: tuple[Subject, ...]
    profiles: tuple[Dots, ...]
    matrices: tuple[Matrix, ...]
    stacked: tuple[Dots, ...]
    models: tuple[ModelFacts, ...]
    corpora: tuple[CorpusFacts, ...]
    files: tuple[tuple[str, FileHash], ...]
    """whose, and which file."""


def of(run: Record) -> Contents:
    """
    What there is to say of *run*.

    Raises:
        RecordError: it has a check that this version does not know.
    """
    known = {check.name for check in (*checks.CHECKS, checks.NO_REGRESSION)}
    if unknown := sorted({result.check for result in run.results} - known):
        raise errors.bad_record("record", f"the check {unknown[0]} is unknown to this version")
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
        profiles=figures.profiles(run),
        matrices=figures.matrices(run),
        stacked=tuple(figures.stacks(run)),
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
        plots=figures.by_position(results, anchor),
        flips=tuple(flip for result in results for flip in result.flips),
        choice_flips=tuple(flip for result in results for flip in result.choice_flips),
        worst=tuple(each for result in results for each in result.worst),
        explanation=next((r.explanation for r in results if r.explanation is not None), None),
    )


def _verdict(run: Record, subjects: Sequence[Subject]) -> Verdict:
    """
    Red for anything that failed or erred, or is inconclusive; green only if every SAE has a verdict.

    In the smoke profile what is inconclusive stops nothing, and is no verdict either. As the run itself has it: that
    an SAE is no copy of another decides nothing of it, and a baseline with which nothing was compared is no green.
    """
    is_smoke = dict(run.options).get("profile") == "smoke"
    stops = RED[:2] if is_smoke else RED
    stopping = [subject for subject in subjects if any(r.outcome in stops for r in subject.results)]
    decided = [r for r in run.results if r.outcome in ("passed", *stops) and r.check != checks.DISTINCT.name]
    without = [sae_id for sae_id in run.release.sae_ids if sae_id not in {r.sae_id for r in decided}]
    n_left_out = sum(map(_is_left_out, run.results))
    n_saes, counts = len(run.release.sae_ids), _counts(run.results)
    word: Word = "passed"
    sentence = f"All {n_saes} SAEs within limits: {counts}."
    if stopping:
        word, sentence = "failed", f"{_of_them(stopping, 'SAE', n_saes)} not within limits: {counts}."
    elif without or not decided:
        word, sentence = "undecided", f"No verdict on {len(without)} of {n_saes} SAEs: {counts}."
    elif not _is_compared(run, decided):
        word, sentence = "undecided", f"Nothing was compared with the baseline: {counts}."
    elif n_left_out:
        word, sentence = "partial", f"All {n_saes} SAEs within the limits that were checked: {counts}."
    return Verdict(
        word=word,
        sentence=sentence,
        reasons=tuple(sorted((s for s in subjects if s.red), key=lambda s: -len(s.red))),
        notes=tuple(_notes(is_smoke=is_smoke, without=without, n_left_out=n_left_out)),
    )


def _is_left_out(result: Result) -> bool:
    """By `-k` and the like, or because the run ended before it."""
    return result.outcome == "not_measured" and result.reason.startswith(("not selected", "not reached"))


def _is_compared(run: Record, decided: Sequence[Result]) -> bool:
    """Whether there is a verdict on at least one difference, if differences were asked for."""
    if dict(run.options).get("baseline") is None:
        return True
    comparisons = [r for r in run.results if r.check == checks.NO_REGRESSION.name]
    are_left_out = bool(comparisons) and all(map(_is_left_out, comparisons))
    return are_left_out or any(r.check == checks.NO_REGRESSION.name for r in decided)


def _of_them(reasons: Sequence[Subject], noun: str, n_all: int) -> str:
    """`2 of 5 SAEs and 1 stack`."""
    n_saes = sum(subject.anchor.startswith("sae-") for subject in reasons)
    parts = [f"{n_saes} of {n_all} {noun}s"] if n_saes else []
    for kind, word in (("stack-", "stack"), ("comparison-", "comparison")):
        n = sum(subject.anchor.startswith(kind) for subject in reasons)
        parts += [f"{n} {word}{'s' if n > 1 else ''}"] if n else []
    return " and ".join(parts)


def _counts(results: Sequence[Result]) -> str:
    in_order = (*RED, *(outcome for outcome in wording.OUTCOMES if outcome not in RED))
    counts = {outcome: sum(r.outcome == outcome for r in results) for outcome in in_order}
    return ", ".join(f"{n} {wording.OUTCOMES[outcome][1]}" for outcome, n in counts.items() if n) or "no checks"


def _notes(*, is_smoke: bool, without: Sequence[str], n_left_out: int) -> Iterable[str]:
    if without:
        yield f"Without a verdict: {', '.join(wording.text(sae_id) for sae_id in without)}."
    if n_left_out:
        yield f"Checks not selected, or not reached, in this run: {n_left_out}."
    if is_smoke:
        yield "The smoke profile: a quarter of the text, and what is inconclusive only warns: no basis for a release."
