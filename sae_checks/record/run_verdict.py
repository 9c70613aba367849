"""
Whether a run is a pass: no check is red, and every selected SAE has a verdict.

pytest applies this rule to its session, and `sae-checks merge` to several.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from sae_checks import checks, errors

if TYPE_CHECKING:  # the plugin reads this in every pytest run: no NumPy
    from sae_checks.judging.verdict import Outcome
    from sae_checks.record.results import Record, Result

Word = Literal["passed", "failed", "not_decided"]
"""The verdict on a run."""

NOT_SELECTED = "not selected (-k, -m, --lf, paths)"
NOT_REACHED = "not reached"


def of_other_shard(shard: str) -> str:
    """Reason of a result that a run of *shard* leaves to another shard."""
    return f"not of this shard ({shard}): another run judges it"


def is_verdict(result: Result) -> bool:
    """
    Whether *result* decides something about its SAE.

    An inconclusive result does not, although the smoke profile lets it pass. `distinct` does not: it measures nothing.
    """
    undecided = ("not_measured", "reported", "inconclusive")
    return result.outcome not in undecided and result.check != checks.DISTINCT.name


def is_red(outcome: Outcome, *, profile: str) -> bool:
    """Whether a check with *outcome* fails the run."""
    return outcome in ("failed", "error") or (outcome == "inconclusive" and profile != "smoke")


def shortcoming(
    results: Collection[Result],
    selected: Collection[tuple[str, str]],
    *,
    sae_ids: Collection[str],
    comparisons: Collection[tuple[str, str]],
    baseline: str | None,
) -> str | None:
    """
    Why a run is not a pass although none of its checks is red; None: it is a pass.

    Args:
        results: all results of the run.
        selected: (subject, check) of every selected check; at least one.
        sae_ids: of the whole release.
        comparisons: (subject, check) of every possible comparison with the baseline.
        baseline: value of --sae-baseline.
    """
    judged = {(result.sae_id, result.check) for result in results if is_verdict(result)}
    is_left_out = comparisons and not set(comparisons) & set(selected)  # by -k and the like: as asked
    if baseline is not None and not is_left_out and not set(comparisons) & judged:
        return errors.nothing_compared(baseline)
    of_release = set(sae_ids)  # a stack may be impossible, and its SAEs all the same sound
    without = {sae_id for sae_id, _ in selected} & of_release - {sae_id for sae_id, _ in judged}
    return errors.sae_not_judged(sorted(without)) if without or not judged else None


def of_record(record: Record) -> Word:
    """
    The verdict on the run of *record*.

    A run is not decided if no check failed but a selected check is inconclusive or was not reached, or an SAE or the
    comparison with the baseline has no verdict. That holds in the smoke profile, too, whose exit status may be 0.
    """
    options = dict(record.options)
    skipped = {NOT_SELECTED, of_other_shard(str(options.get("shard")))}
    selected = [result for result in record.results if result.reason not in skipped]
    if any(result.outcome in ("failed", "error") for result in selected):
        return "failed"
    without_result = set(record.release.sae_ids) - {result.sae_id for result in record.results}
    is_open = any(r.outcome == "inconclusive" or r.reason == NOT_REACHED for r in selected)
    if not selected or is_open or without_result:
        return "not_decided"
    comparisons = {(r.sae_id, r.check) for r in record.results if r.check == checks.NO_REGRESSION.name}
    baseline = options.get("baseline")
    missing = shortcoming(
        selected,
        [(result.sae_id, result.check) for result in selected],
        sae_ids=record.release.sae_ids,
        comparisons=comparisons,
        baseline=None if baseline is None else str(baseline),
    )
    return "passed" if missing is None else "not_decided"
