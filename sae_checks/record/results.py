"""What one run found: its results, and what they were measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from sae_checks import checks
from sae_checks.diagnosis import Diagnosis
from sae_checks.explanation import Explanation
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.judged import JudgedValue, judged_value
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedAnswers, PairedSample
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.propagation_readings import Downstream
from sae_checks.judging.sequential import Decision
from sae_checks.judging.study_readings import StackStep
from sae_checks.judging.verdict import JudgedLimit, Outcome
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import Package, Provenance
from sae_checks.record import run_verdict

_PACKAGES = (
    "sae-checks",
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "datasets",
    "numpy",
    "scipy",
    "pytest",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One check of one SAE or stack, or one comparison with the baseline."""

    sae_id: str
    """id of the SAE; of a stack `all of PLACE`; of a comparison `SAE-CHECK`."""
    check: str
    outcome: Outcome
    reason: str
    """the verdict in words."""
    limit: Limit | None
    """of several, the one that decides; None: none is written for this check."""
    judged: JudgedValue | None = None
    """the value that is shown, as the verdict saw it; None: none was measured, or it is not finite."""
    accepted: str | None = None
    """source of a limit that allows what the default limit would fail; None: the default would pass it, too."""
    estimates: tuple[Estimate, ...] = ()
    """everything that was measured, with descriptive intervals."""
    other_limits: tuple[JudgedLimit, ...] = ()
    """the other limits of the check, and what each found."""
    decision: Decision | None = None
    """the test of the limited measure; None: the measure is counted or exact, or there is no verdict."""
    paired_sample: PairedSample | None = None
    """the limited measure sequence by sequence, for a later run to be compared with; None: it has no sample."""
    curves: tuple[Curve, ...] = ()
    """measures by position; long_context only. A record keeps six significant digits."""
    changed_answers: tuple[ChangedAnswer, ...] = ()
    """examples of answers lost and won; lambada only."""
    changed_choices: tuple[ChangedChoice, ...] = ()
    """examples of choices lost and won; cbt only."""
    worst_sequences: tuple[WorstSequence, ...] = ()
    """the sequences that the splice cost most, worst first; ce_loss only."""
    explanation: Explanation | None = None
    """where the loss comes from; ce_loss with --sae-explain only."""
    diagnosis: Diagnosis | None = None
    """what is wrong with the SAE, as measured; every red check of an SAE has the same one."""
    downstream: tuple[Downstream, ...] = ()
    """what the splice does at every later SAE, by depth; propagation only."""
    stack_steps: tuple[StackStep, ...] = ()
    """the first SAE of a stack, the first two, ...; checks of stacks only."""
    provenance: Provenance | None = None
    """what it was measured on; None: nothing was measured."""

    def __post_init__(self) -> None:
        """Find what the verdict rests on where it is not given, as in a record of an earlier version."""
        if self.judged is not None or not self.estimates:
            return
        measure = self.estimates[-1].measure if self.limit is None else self.limit.measure
        sample = self.paired_sample
        found = judged_value(
            measure,
            self.estimates,
            self.decision,
            limit=self.limit,
            outcome=self.outcome,
            n_listed=sample.n_listed if isinstance(sample, PairedAnswers) else None,
        )
        object.__setattr__(self, "judged", found)

    @property
    def judged_limits(self) -> tuple[JudgedLimit, ...]:
        """All limits of the check and what each found, the deciding one first."""
        if self.limit is None:
            return ()
        deciding = JudgedLimit(
            limit=self.limit, outcome=self.outcome, reason=self.reason, judged=self.judged, decision=self.decision
        )
        return deciding, *self.other_limits

    @property
    def limits(self) -> tuple[Limit, ...]:
        """All limits of the check, the deciding one first."""
        return tuple(each.limit for each in self.judged_limits)

    @property
    def main_limit(self) -> Limit | None:
        """The limit whose measure stands for the check in other runs, whatever decides in this one."""
        kept = None if self.paired_sample is None else self.limit_on(self.paired_sample.measure)
        order = [measure.name for measure in checks.named(self.check).measures]
        return kept or min(self.limits, key=lambda limit: order.index(limit.measure), default=None)

    def limit_on(self, measure: str) -> Limit | None:
        """The limit on *measure*, if it is limited."""
        return next((limit for limit in self.limits if limit.measure == measure), None)

    def judged_on(self, measure: str) -> JudgedValue | None:
        """The value of *measure* as the verdict saw it, if it is limited."""
        each = (self.judged, *(other.judged for other in self.other_limits))
        return next((judged for judged in each if judged is not None and judged.measure == measure), None)


def without_value(sae_id: str, check: str, outcome: Outcome, reason: str, limits: Sequence[Limit]) -> Result:
    """A result that judges none of *limits*, with the *reason*."""
    others = tuple(JudgedLimit(limit=limit, outcome=outcome) for limit in limits[1:])
    limit = limits[0] if limits else None
    return Result(sae_id=sae_id, check=check, outcome=outcome, reason=reason, limit=limit, other_limits=others)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """The release as it was asked for and pinned."""

    name: str
    source: str
    """folder, Hub repository, or `embedded`."""
    revision: str | None
    """commit that was fetched; None for files on disk."""
    sae_ids: tuple[str, ...]
    """every SAE that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run."""

    started: str
    """UTC, ISO 8601."""
    wall_s: float
    release: ReleaseFacts
    options: tuple[tuple[str, str | int | None], ...]
    """(name, value) of every option as it was in force."""
    software: tuple[Package, ...]
    platform: str
    results: tuple[Result, ...]
    exit_status: int | None = None
    """what the run exits with; None: unknown."""

    @property
    def verdict(self) -> run_verdict.Word:
        """`passed`, `failed`, or `not_decided`: no check is red, but a selected check or SAE has no verdict."""
        return run_verdict.of_record(self)

    @property
    def passed(self) -> bool:
        """Whether the run is a pass: no check is red, and everything that was to be judged is decided."""
        return self.exit_status == 0 and self.verdict == "passed"

    def to_frame(self) -> Any:  # Any: pandas is imported when it is asked for
        """
        The checks that were selected as a table of pandas, one row each.

        Returns:
            Columns `sae`, `check`, `outcome`, `measure`, `value`, `low` and `high` (the bounds of the verdict), `unit`,
            `n` (sequences or items), `limit` and `reason`; the measure is the one that was judged.
        """
        from sae_checks.record import frame

        return frame.of_results(self.results)


def software() -> tuple[Package, ...]:
    """The installed versions of every package that can move a number."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(Package(name=name, version=metadata.version(name)))
        except metadata.PackageNotFoundError:  # a bare checkout has no sae-checks distribution
            continue
    return tuple(found)
