"""
Two runs -> what has become worse, check by check, and why a check cannot be compared.

Checks on the same tokens are compared in pairs, as in `baseline`. If only the sample of the texts differs, the two
estimates are compared as independent ones. A check that newly fails its limit has regressed, whatever the difference.
A check that the first run decided and the second did not is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import ndtri

from sae_checks import checks
from sae_checks.comparing import baseline
from sae_checks.comparing.baseline import Conditions
from sae_checks.comparing.history import series
from sae_checks.judging.budget import ALPHA, N_LEAST, Budget
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.judged import JudgedValue
from sae_checks.judging.limits import Limit
from sae_checks.judging.thresholds import Thresholds
from sae_checks.judging.verdict import Outcome
from sae_checks.record.results import Record, Result

State = Literal["regressed", "undecided", "lost", "no worse", "not compared", "new"]

_FINGERPRINT = "the fingerprint of its tokens"
_MEASURED: tuple[str, ...] = ("passed", "failed", "inconclusive", "reported")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCheck:
    """One check of one SAE or stack, in two runs."""

    sae_id: str
    check: str
    measure: str
    """the limited one; of a check without a limit the last."""
    before: Estimate | JudgedValue | None
    after: Estimate | JudgedValue | None
    """as its run judged it; of a pair, over the sequences that both runs have."""
    difference: Estimate | None
    """after - before; None: not compared."""
    margin: Limit | None
    """of the difference; None: no margin is written."""
    limit: Limit | None
    """of the second run; of the first for a check that it alone has."""
    was: Outcome | None
    now: Outcome | None
    """outcome in each run; None: it does not have the check."""
    how: Literal["paired", "unpaired", "not"]
    state: State
    reason: str
    """one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The comparison of two runs."""

    cells: tuple[ComparedCheck, ...]
    """in the order of the second run; checks of the first alone come last."""

    def of(self, state: State) -> tuple[ComparedCheck, ...]:
        return tuple(cell for cell in self.cells if cell.state == state)

    @property
    def n_judged(self) -> int:
        """Checks whose difference was judged by a margin."""
        return sum(cell.how != "not" for cell in self.cells)

    @property
    def has_regressed(self) -> bool:
        return bool(self.of("regressed"))

    @property
    def is_settled(self) -> bool:
        """Whether something was judged and nothing is undecided or lost."""
        return self.n_judged > 0 and not self.of("undecided") and not self.of("lost")


def compare(before: Record, after: Record, limits: Thresholds) -> Comparison:
    """
    Compare every check of *after* with that of *before*, by the margins of *limits*.

    The probability of a false alarm among all checks is about ALPHA, and so is that of each false pass.
    """
    of_before = {(r.sae_id, r.check): r for r in before.results if r.check != checks.NO_REGRESSION.name}
    of_after = {(r.sae_id, r.check): r for r in after.results if r.check != checks.NO_REGRESSION.name}
    margins = {cell: _margin(result, after.release.name, limits) for cell, result in of_after.items()}
    n_checks = max(1, sum(m is not None and of_after[c].paired_sample is not None for c, m in margins.items()))
    pair = _Pair(earlier=before, later=after, n_checks=n_checks)
    cells = [pair.cell(of_before.get(cell), result, margins[cell]) for cell, result in of_after.items()]
    gone = [result for cell, result in of_before.items() if cell not in of_after]
    return Comparison(cells=(*cells, *map(_gone, gone)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """The two runs of a comparison."""

    earlier: Record
    later: Record
    n_checks: int
    """checks that are judged; they share the probability of a false alarm."""

    def cell(self, before: Result | None, after: Result, margin: Limit | None) -> ComparedCheck:
        measure = _measure(after)
        blank = ComparedCheck(
            sae_id=after.sae_id,
            check=after.check,
            measure=measure,
            before=None if before is None else _shown(before, measure),
            after=_shown(after, measure),
            difference=None,
            margin=margin,
            limit=after.main_limit,
            was=None if before is None else before.outcome,
            now=after.outcome,
            how="not",
            state="not compared",
            reason="",
        )
        if before is None:
            return replace(blank, state="new", reason=f"only in the second run ({_outcome_word(after)})")
        found = self._by_difference(blank, before, after)
        return _by_outcomes(found, before, after)

    def _by_difference(self, blank: ComparedCheck, before: Result, after: Result) -> ComparedCheck:
        """*blank*, with the verdict on the difference if there is a margin and both were measured alike."""
        if blank.margin is None:
            return replace(blank, reason=_why_no_margin(after))
        if before.paired_sample is None or after.paired_sample is None:
            which, without = ("first", before) if before.paired_sample is None else ("second", after)
            state: State = (
                "not compared" if {before.outcome, after.outcome} & {"not_measured", "error"} else "undecided"
            )
            return replace(blank, state=state, reason=f"the {which} run has no values ({_outcome_word(without)})")
        now, then = _conditions(self.later), _conditions(self.earlier)
        other = [(what, str(a), str(b)) for what, a, b in baseline.differences(before, after, then, now) if a != b]
        if not other:
            return self._paired(blank, before, after)
        if [what for what, *_ in other] == [_FINGERPRINT] and (why := _not_the_same_text(before, after)) is None:
            return self._unpaired(blank, _value(before, blank.measure), _value(after, blank.measure))
        what, earlier, later = (why, "", "") if len(other) == 1 and other[0][0] == _FINGERPRINT else other[0]
        change = f"{what}: {_short(earlier)} -> {_short(later)}" if earlier or later else str(what)
        return replace(blank, state="undecided", reason=f"cannot be compared: {change}")

    def _paired(self, blank: ComparedCheck, before: Result, after: Result) -> ComparedCheck:
        assert blank.margin is not None
        assert after.paired_sample is not None
        # WHY n_most: a check that stopped early has fewer values than were planned
        n = after.paired_sample.n if after.decision is None else after.decision.n_most
        budget = Budget(n_planned=n, n_most=n, n_checks=self.n_checks)
        against = baseline.from_record(replace(self.earlier, results=(before,)), "the first run")
        judged = baseline.compare(after, against, blank.margin, _conditions(self.later), budget)
        values = {e.measure: e for e in judged.estimates}
        states: dict[str, State] = {"passed": "no worse", "failed": "regressed"}
        state = states.get(judged.outcome, "undecided")
        return replace(
            blank,
            before=values.get("before", blank.before),
            after=values.get("after", blank.after),
            difference=values.get("difference"),
            how="paired" if "difference" in values else "not",
            state=state,
            reason=judged.reason.partition("\n")[0],
        )

    def _unpaired(self, blank: ComparedCheck, before: Estimate | None, after: Estimate | None) -> ComparedCheck:
        assert blank.margin is not None
        if before is None or after is None:
            return replace(blank, state="undecided", reason="cannot be compared: a run has no value")
        difference = subtract(after, before)
        state = _judged(difference, blank.margin, self.n_checks)
        words = {"no worse": "no worse", "regressed": "worse by more than the margin"}
        verdict = words.get(state, "the interval contains the margin")
        return replace(
            blank,
            difference=difference,
            how="unpaired",
            state=state,
            reason=f"{verdict}; unpaired: the tokens are another sample of the same text",
        )


def subtract(later: Estimate, earlier: Estimate) -> Estimate:
    """
    *later* - *earlier*, of two independent samples, with a 95 % interval from both of theirs.

    Source: Zou and Donner, Statistics in Medicine 27 (2008), the square-and-add interval of a difference.
    """
    value = later.value - earlier.value
    down = math.hypot(later.value - later.low, earlier.high - earlier.value)
    up = math.hypot(later.high - later.value, earlier.value - earlier.low)
    n = min(later.n, earlier.n)
    return Estimate(measure="difference", value=value, low=value - down, high=value + up, unit=later.unit, n=n)


def _judged(difference: Estimate, margin: Limit, n_checks: int) -> State:
    """
    The state of an unpaired *difference*: regressed at level ALPHA / *n_checks*, no worse at level ALPHA.

    With a range, every side must hold.
    """
    if difference.n < N_LEAST:
        return "undecided"
    z_interval = -float(ndtri(ALPHA / 2))  # the difference's interval is two-sided
    to_fail, to_pass = (-float(ndtri(alpha)) / z_interval for alpha in (ALPHA / n_checks, ALPHA))
    states: list[State] = []
    for side in margin.sides:
        sign = 1 if side.kind == "max" else -1
        ends = sorted(sign * end for end in (difference.low, difference.high))
        value, bound = sign * difference.value, sign * side.value
        is_worse = value - to_fail * (value - ends[0]) > bound
        is_fine = value + to_pass * (ends[1] - value) < bound
        states.append("regressed" if is_worse else "no worse" if is_fine else "undecided")
    order: tuple[State, ...] = ("regressed", "undecided", "no worse")
    return min(states, key=order.index)


def _by_outcomes(found: ComparedCheck, before: Result, after: Result) -> ComparedCheck:
    """*found*, unless the verdicts of the two runs decide: a new failure is a regression, a lost value is lost."""
    was, now = before.outcome, after.outcome
    words = f"{_outcome_word(before)} before, {_outcome_word(after)} now"
    why = after.reason.partition("\n")[0]
    is_judged = found.how != "not"  # WHY: then the difference says more than an earlier verdict that was open
    if (now in ("failed", "error") and was == "passed") or (
        now == "failed" and was in ("reported", "inconclusive") and not is_judged
    ):
        return replace(found, state="regressed", reason=f"{words}: {why}")
    if now in ("error", "not_measured") and was in _MEASURED:
        return replace(found, state="lost", reason=f"{words}: {why}")
    if not is_judged and now == "inconclusive" and was in ("passed", "failed"):
        return replace(found, state="undecided", reason=f"{words}; {found.reason}")
    return found


def _gone(before: Result) -> ComparedCheck:
    measure = _measure(before)
    return ComparedCheck(
        sae_id=before.sae_id,
        check=before.check,
        measure=measure,
        before=_shown(before, measure),
        after=None,
        difference=None,
        margin=None,
        limit=before.main_limit,
        was=before.outcome,
        now=None,
        how="not",
        state="lost" if before.outcome in _MEASURED else "not compared",
        reason=f"only in the first run ({_outcome_word(before)})",
    )


def _margin(result: Result, release: str, limits: Thresholds) -> Limit | None:
    """The limit of the difference, if a margin is written for the limited measure."""
    limit = result.main_limit
    if limit is None or checks.named(result.check).is_exact:
        return None
    found = limits.margin(release, result.sae_id, result.check)
    return None if found is None or found.measure != limit.measure else found.limit(limit)


def _why_no_margin(result: Result) -> str:
    return "no limit, and so no margin" if result.limit is None else "no margin"


def _not_the_same_text(before: Result, after: Result) -> str | None:
    """Why two estimates are of different texts; None: they are samples of the same text."""
    assert before.provenance is not None
    assert after.provenance is not None
    then, now = before.provenance.corpus, after.provenance.corpus
    if then.sha256 != now.sha256 and then.source != now.source:
        return f"the text: {_short(then.source)} -> {_short(now.source)}"
    if then.n_context_tokens != now.n_context_tokens:
        return f"the tokens per sequence: {then.n_context_tokens} -> {now.n_context_tokens}"
    return None


def _measure(result: Result) -> str:
    limit = result.main_limit
    return checks.named(result.check).measures[-1].name if limit is None else limit.measure


def _value(result: Result, measure: str) -> Estimate | None:
    return next((e for e in result.estimates if e.measure == measure), None)


def _shown(result: Result, measure: str) -> Estimate | JudgedValue | None:
    return result.judged_on(measure) or _value(result, measure)


def _conditions(run: Record) -> Conditions:
    rule = str(dict(run.options).get("special_tokens"))
    return Conditions(special_tokens=rule, sae_ids=run.release.sae_ids)


def _outcome_word(result: Result) -> str:
    return result.outcome.replace("_", " ")


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:21]}..."


def worst_first(cells: Sequence[ComparedCheck]) -> Iterator[ComparedCheck]:
    """*cells* by state, the worst first; within a state SAEs in natural order, then stacks."""
    order: tuple[State, ...] = ("regressed", "lost", "undecided", "no worse", "new", "not compared")
    rank = {check.name: i for i, check in enumerate(checks.CHECKS)}
    yield from sorted(cells, key=lambda c: (order.index(c.state), series.place(c.sae_id, c.check), rank[c.check]))
