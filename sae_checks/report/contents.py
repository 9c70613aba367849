"""A record -> the contents of a report: the verdict, the reasons for it, each SAE, and the provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sae_checks import checks, errors
from sae_checks.diagnosis import Diagnosis
from sae_checks.explanation import Explanation
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, SaeFacts
from sae_checks.record import run_verdict
from sae_checks.record.results import Record, Result
from sae_checks.release.natural_order import NaturalKey, natural_key
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
    def diagnosis(self) -> Diagnosis | None:
        """What is wrong with it."""
        return next((r.diagnosis for r in self.results if r.diagnosis is not None), None)

    def of(self, check: str) -> Result | None:
        """The result of *check*."""
        return next((result for result in self.results if result.check == check), None)

    @property
    def rank(self) -> tuple[int, int, NaturalKey]:
        """Its place in a list: failed, undecided, green; then most failures, then by name."""
        return 0 if self.n_failed else 1 if self.red else 2, -self.n_failed, natural_key(self.name)

    @property
    def n_failed(self) -> int:
        """Checks that failed or broke off."""
        return sum(result.outcome in ("error", "failed") for result in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One check of one SAE against the baseline."""

    name: str
    """of the SAE or stack."""
    check: str
    """title of the check; empty: not known."""
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on a run."""

    word: run_verdict.Word
    sentence: str
    reasons: tuple[Subject, ...]
    """SAEs and stacks with failed checks, those with most failures first."""
    undecided: tuple[Subject, ...]
    """SAEs and stacks with inconclusive checks only."""
    notes: tuple[str, ...]
    """what the run did not check."""


@dataclass(frozen=True, kw_only=True)  # no slots: what the template asks often is computed once
class Contents:
    """Everything that a report shows."""

    run: Record
    verdict: Verdict
    checks: tuple[checks.Check, ...]
    """of single SAEs, as far as the run has a value or a red outcome of them."""
    saes: tuple[Subject, ...]
    """the red ones first."""
    stacks: tuple[Subject, ...]
    comparisons: tuple[Comparison, ...]
    """the red ones first."""
    accepted: tuple[tuple[str, str, str], ...]
    """(SAE, check, source) of every limit that allows more than the default."""
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

    @cached_property
    def l0(self) -> Mapping[str, float | None]:
        """Active latents per token, by SAE."""
        return {row.sae_id: row.l0 for row in self.tradeoff}

    @cached_property
    def measures(self) -> Mapping[str, tuple[str, ...]]:
        """The measures that were judged, by check."""
        found: dict[str, dict[str, None]] = {}
        for result in self.run.results:
            if result.judged is not None:
                found.setdefault(result.check, {})[result.judged.measure] = None
        return {check.name: tuple(found.get(check.name, ())) for check in self.checks}

    @property
    def sections(self) -> tuple[tuple[str, str], ...]:
        """(HTML id, title) of every section that there is."""
        found = (
            (
                "why",
                "What is wrong" if self.verdict.reasons else "What is undecided",
                self.verdict.reasons or self.verdict.undecided,
            ),
            ("baseline", "Against the baseline", self.comparisons),
            ("tradeoff", "Sparsity and what it costs", self.scatters),
            ("grid", "Every SAE, every check", self.saes),
            ("release", "Across the release", (*self.profiles, *self.matrices, *self.stacks)),
            ("saes", "Each SAE", self.saes),
            ("made", "Provenance", (self.run,)),
        )
        return tuple((anchor, title) for anchor, title, shown in found if shown)


def build(run: Record) -> Contents:
    """
    Build the contents of the report on *run*.

    Raises:
        RecordError: the record has a check that this version does not know.
    """
    known = {check.name for check in (*checks.CHECKS, checks.NO_REGRESSION)}
    if unknown := sorted({result.check for result in run.results} - known):
        raise errors.bad_record("record", f"this version does not know the check {unknown[0]}")
    saes, stacks = (_subjects(run, kind) for kind in ("sae", "stack"))
    provenances = [result.provenance for result in run.results if result.provenance is not None]
    models = tuple(dict.fromkeys(provenance.model for provenance in provenances))
    sparse = tradeoff.rows(run)
    shown = {r.check for r in run.results if r.judged is not None or r.outcome in RED}
    return Contents(
        run=run,
        verdict=_verdict(run, (*saes, *stacks)),
        checks=tuple(c for c in checks.CHECKS if c.of == "sae" and c.name in shown),
        saes=saes,
        stacks=stacks,
        comparisons=tuple(sorted(_comparisons(run), key=_rank_of_comparison)),
        accepted=tuple(
            (r.sae_id, checks.named(r.check).title, r.accepted) for r in run.results if r.accepted is not None
        ),
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
    subjects = [_subject(f"{kind}-{i}", name, rows) for i, (name, rows) in enumerate(found.items())]
    return tuple(sorted(subjects, key=lambda subject: subject.rank))


def _comparisons(run: Record) -> Iterable[Comparison]:
    subjects = {r.sae_id for r in run.results if checks.named(r.check).of != "comparison"}
    for result in run.results:
        if result.check == checks.NO_REGRESSION.name:
            name, _, check = result.sae_id.rpartition("-")
            if name in subjects and check in {c.name for c in checks.CHECKS}:
                yield Comparison(name=name, check=checks.named(check).title, result=result)
            else:
                yield Comparison(name=result.sae_id, check="", result=result)


def _rank_of_comparison(comparison: Comparison) -> tuple[int, NaturalKey]:
    in_order = (*RED, "passed")
    outcome = comparison.result.outcome
    return in_order.index(outcome) if outcome in in_order else len(in_order), natural_key(comparison.name)


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
        reasons=tuple(sorted((s for s in subjects if s.n_failed), key=lambda s: s.rank)),
        undecided=tuple(s for s in subjects if s.red and not s.n_failed),
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
