"""
The comparison of a run with an earlier one on the same tokens, in pairs of values.

If the two runs did not measure the same thing on the same predictions, the comparison is an error and not a skip: a
user who asks for a comparison must not see green without one.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sae_checks import checks, errors
from sae_checks.comparing import last_green
from sae_checks.comparing.history import runs, store
from sae_checks.judging import verdict
from sae_checks.judging.budget import Budget
from sae_checks.judging.estimates import Estimate, NotMeasured, Reading, paired_drop, t_quantile
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio, PairedSample
from sae_checks.judging.samples import Answers, Difference, Sample
from sae_checks.plan.options import Options
from sae_checks.provenance import Provenance
from sae_checks.record import record
from sae_checks.record.results import Record, Result

_RUN_ID = re.compile(r"[0-9TZ]*_?[0-9a-f]{4,16}|[0-9TZ]{4,16}")
"""the id of a run in a history, or its beginning or end."""
_OF_OTHER_SAES = {check.name for check in (checks.PROPAGATION, checks.NEXT_SAE, checks.LAST_SAE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Conditions of a whole run that provenances do not hold."""

    special_tokens: str
    sae_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The parts of an earlier run that are compared."""

    source: str
    """the value of --sae-baseline."""
    started: str
    where: str = ""
    """file, id in the history, or git revision."""
    age: str = ""
    """how long ago it started, in words."""
    accepted: str | None = None
    """why a person has taken it as the baseline though it was worse; None: nobody has."""
    conditions: Conditions
    results: tuple[Result, ...]
    options: tuple[tuple[str, str | int | None], ...] = ()
    """of the whole run, as its record has them."""

    @property
    def in_words(self) -> str:
        """When it started, where it lies, and why it was accepted."""
        accepted = "" if self.accepted is None else f"; accepted: {self.accepted}"
        return f"{self.started}, {errors.shown(self.where, n_most=300)}{accepted}"

    def result(self, subject: str, check: str) -> Result | None:
        """The result of *check* of *subject*, an SAE or a stack."""
        return next((r for r in self.results if (r.sae_id, r.check) == (subject, check)), None)


def load(options: Options, release: str) -> Baseline:
    """
    Read the baseline that *options* ask for.

    It is the path of a record; `last` for the last green run (see `last_green`); the id of a run in the history; a git
    revision for the record of --sae-out at that revision; or `REVISION:PATH`.

    Args:
        options: with a baseline.
        release: name of the release in the history.

    Raises:
        UsageError: there is no such record, or it cannot be read.
    """
    asked = options.baseline or ""
    try:
        found, where = _find(asked, options, release)
    except errors.UsageError:
        raise
    except (errors.RecordError, errors.HistoryError) as problem:
        raise errors.bad_baseline(asked, str(problem).partition("\n  got:      ")[2].partition("\n")[0]) from None
    except (OSError, ValueError) as problem:
        raise errors.bad_baseline(asked, str(problem)) from None
    return replace(from_record(found, asked), where=where, age=last_green.age(found))


def _find(asked: str, options: Options, release: str) -> tuple[Record, str]:
    """The record that is *asked* for, and where it lies."""
    if asked == "last":
        found = last_green.find(options, release)
        if found is None:
            places = [str(place) for place in (options.out, options.history) if place is not None]
            got = f"none in {errors.listed(places)}" if places else "a run without --sae-out and --sae-history"
            raise errors.no_green_run(got)
        return found.run, found.where
    path, own = Path(asked).expanduser(), options.record
    if path.exists():
        if own is not None and own.exists() and path.samefile(own):
            raise errors.own_baseline(asked)
        return record.read(path), str(path)
    if options.history is not None and _RUN_ID.fullmatch(asked):
        with contextlib.suppress(errors.UsageError):  # WHY: then it is a commit
            run = runs.find_run(asked, options.history)
            return run.record, f"{run.run_id} in {store.without_secrets(options.history)}"
    return record.loads(_at_revision(asked, own), asked), asked


def from_record(found: Record, source: str) -> Baseline:
    """The baseline that *found* is, without curves and examples."""
    results = (
        replace(r, curves=(), changed_answers=(), changed_choices=(), explanation=None, downstream=())
        for r in found.results
        if r.check != checks.NO_REGRESSION.name
    )
    rule = str(dict(found.options).get("special_tokens"))
    return Baseline(
        source=source,
        started=found.started,
        conditions=Conditions(special_tokens=rule, sae_ids=found.release.sae_ids),
        results=tuple(results),
        options=found.options,
        accepted=last_green.reason_of(found),
    )


def _at_revision(asked: str, own: Path | None) -> str:
    """
    The text of the record at a git revision, in the repository of the working directory.

    Raises:
        UsageError: git does not have it.
    """
    revision, _, path = asked.partition(":")
    if not path and own is None:
        raise errors.bad_baseline(asked, "no such file; a git revision needs --sae-out DIR or REVISION:PATH")
    path = path or os.path.relpath(own or "")
    command = ["git", "show", "--end-of-options", f"{revision}:./{path}"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)  # noqa: S603 -- no shell, no option
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        raise errors.bad_baseline(asked, f"no such file, and git cannot be run ({problem})") from None
    if done.returncode != 0:
        problem_line = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        raise errors.bad_baseline(asked, f"no such file, and git says: {problem_line}")
    return done.stdout.decode("utf-8")


def compare(after: Result, baseline: Baseline, limit: Limit, now: Conditions, budget: Budget) -> Result:
    """
    Judge the difference after - before of one check, paired by sequence or item.

    The same weights with the same values pass with difference 0, however few pairs there are.

    Args:
        after: the result of this run.
        baseline: the earlier run.
        limit: of the difference.
        now: the conditions of this run.
        budget: of the check; the number of pairs replaces its n_most.

    Returns:
        The result of `no_regression`. Its outcome is error if the two runs cannot be compared, or the baseline has no
        value of what this run has measured.
    """
    subject = f"{after.sae_id}-{after.check}"
    blank = Result(sae_id=subject, check=checks.NO_REGRESSION.name, outcome="error", reason="", limit=limit)
    if after.provenance is not None:
        blank = replace(blank, provenance=replace(after.provenance, sae=None))
    before = baseline.result(after.sae_id, after.check)
    if (
        after.paired_sample is None or after.outcome == "not_measured"
    ):  # WHY both: a drop without room to fail has a sample
        outcome = after.outcome if after.outcome in ("error", "failed") else "not_measured"
        return replace(blank, outcome=outcome, reason=after.reason)
    if before is None or before.paired_sample is None:
        why = "it is not in that run" if before is None else f"{before.outcome.replace('_', ' ')}: {before.reason}"
        return replace(blank, reason=str(errors.no_value_before(subject, why)))
    for what, earlier, later in differences(before, after, baseline.conditions, now):
        if earlier != later:
            return replace(blank, reason=str(errors.not_comparable(subject, what, str(earlier), str(later))))
    try:
        found = _pairs(before.paired_sample, after.paired_sample, limit.unit)
    except errors.RecordError as problem:
        return replace(blank, reason=str(problem))
    difference = found[-1]
    if isinstance(difference, Estimate) and _is_the_same(before, after, difference.n):
        found = (*found[:-1], replace(difference, low=0.0, high=0.0, sample=None))
    # WHY n_most: pairs are limited by the baseline's values; this run has as many unless it was decided earlier
    decided = verdict.judge(found, limit, replace(budget, n_most=before.paired_sample.n))
    reason = decided.reason
    if decided.outcome == "passed":
        reason = _in_words(found[-1], limit) + reason
    elif decided.outcome == "inconclusive" and before.paired_sample.n < after.paired_sample.n:
        reason += f"; the baseline stopped after {before.paired_sample.n}; --sae-profile=full measures all of them"
    return replace(
        blank,
        outcome=decided.outcome,
        reason=reason,
        judged=decided.judged,
        estimates=decided.estimates,
        decision=decided.decision,
    )


def differences(
    before: Result, after: Result, then: Conditions, now: Conditions
) -> Iterator[tuple[str, object, object]]:
    """(name, before, after) of every condition that must be the same, the most telling first."""
    assert before.paired_sample is not None
    assert after.paired_sample is not None
    yield "the version of the measures", before.paired_sample.measures_version, after.paired_sample.measures_version
    yield "the limited measure", before.paired_sample.measure, after.paired_sample.measure
    yield "the kind of the sample", type(before.paired_sample).__name__, type(after.paired_sample).__name__
    yield "the rule for special tokens", then.special_tokens, now.special_tokens
    earlier, later = before.provenance, after.provenance
    if earlier is None or later is None:
        yield "what was measured of it", earlier, later
        return
    yield "BOS before every sequence", earlier.corpus.prepend_bos, later.corpus.prepend_bos
    yield "the fingerprint of its tokens", before.paired_sample.fingerprint, after.paired_sample.fingerprint
    yield "the sha256 of the model's weights", _hashes(earlier), _hashes(later)
    yield "the model's dtype", earlier.model.dtype, later.model.dtype
    if earlier.sae is not None and later.sae is not None:
        hook_before, hook_after = ((s.hook, s.hook_out, s.head) for s in (earlier.sae, later.sae))
        yield "the SAE's hook", hook_before, hook_after
        contexts = (earlier.sae.n_training_context_tokens, later.sae.n_training_context_tokens)
        if earlier.corpus.kind == "text":
            yield "the SAE's training context", *contexts
    stack_before, stack_after = ([step.sae_id for step in r.stack_steps] for r in (before, after))
    yield "the list of the stack's SAEs", stack_before, stack_after
    if after.check in _OF_OTHER_SAES:
        yield "the list of the release's SAEs", then.sae_ids, now.sae_ids


def _hashes(of: Provenance) -> list[str]:
    return sorted(file.sha256 for file in of.model.weights)


def _is_the_same(before: Result, after: Result, n: int) -> bool:
    """Whether both have the same weights and the same first *n* values."""
    saes = [r.provenance.sae for r in (before, after) if r.provenance is not None and r.provenance.sae is not None]
    of_weights = {tuple(sorted(file.sha256 for file in sae.weights)) for sae in saes}
    return len(saes) == 2 and len(of_weights) == 1 and _first(before.paired_sample, n) == _first(after.paired_sample, n)


def _first(sample: PairedSample | None, n: int) -> tuple[object, ...]:
    if sample is None:
        return ()
    if isinstance(sample, PairedAnswers):
        return (sample.answers[:n],)
    return sample.numerators[:n], sample.denominators[:n]


def _pairs(before: PairedSample, after: PairedSample, unit: str) -> tuple[Reading, ...]:
    """
    Estimates of before, after, and after - before, over the first values, which both samples have.

    Raises:
        RecordError: the clean model answers an item in one way before and in another after.
    """
    n = min(before.n, after.n)
    if n < 2:
        return (NotMeasured(measure="difference", reason=f"{n} pair: an interval needs two"),)
    if isinstance(before, PairedRatio) and isinstance(after, PairedRatio):
        earlier, later = before.first(n), after.first(n)
        of_pairs = Difference(of=later, less=earlier, ideal_value=0.0)
        samples = (("before", earlier), ("after", later), ("difference", of_pairs))
        return tuple(_estimate(measure, sample, unit) for measure, sample in samples)
    assert isinstance(before, PairedAnswers)
    assert isinstance(after, PairedAnswers)
    of_both = [np.array(sample.answers[:n], dtype=np.int64) for sample in (before, after)]
    moved = of_both[1] - of_both[0]
    if np.abs(moved).max() > 1:  # WHY: from lost to won means that the clean answer has changed
        raise errors.not_comparable(after.measure, "an answer of the untouched model", "one", "another")
    named = zip(("before", "after", "difference"), (*of_both, moved), strict=True)
    *both, difference = (paired_drop(measure, values > 0, values < 0, None) for measure, values in named)
    assert isinstance(difference, Estimate)
    return (*both, replace(difference, sample=Answers(values=moved, n_listed=after.n_listed)))


def _estimate(measure: str, sample: Sample, unit: str) -> Estimate:
    n = sample.n
    numerators, denominators = sample.first(n)
    value = float(numerators.sum() / denominators.sum())
    influence = (numerators - value * denominators) / denominators.mean()
    margin = t_quantile(n) * float(np.sqrt(influence @ influence / (n - 1) / n))
    return Estimate(
        measure=measure, value=value, low=value - margin, high=value + margin, unit=unit, n=n, sample=sample
    )


def _in_words(difference: Reading, limit: Limit) -> str:
    """How to read a comparison that passed, by the interval of all pairs."""
    if not isinstance(difference, Estimate):
        return ""
    worse, better = (difference.low > 0, difference.high < 0)[:: 1 if limit.kind == "max" else -1]
    if difference.low == difference.high == 0:
        return "the same: "
    return "worse, but within the margin: " if worse else "better: " if better else "no difference seen: "
