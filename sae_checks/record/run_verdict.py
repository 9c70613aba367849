"""
Results of a run -> whether the run is a pass.

pytest says so of its session and `sae-checks merge` of several, by this one rule. A run is a pass only if no check is
red and every SAE that was selected got a verdict, whatever was counted as passed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sae_checks import checks, errors

if TYPE_CHECKING:  # the plugin reads this in every pytest run: no NumPy
    from sae_checks.judging.verdict import Outcome
    from sae_checks.record.results import Result

NOT_SELECTED = "not selected (-k, -m, --lf, paths)"
NOT_REACHED = "not reached"


def of_other_shard(shard: str) -> str:
    """Why a run of *shard* says nothing of a check."""
    return f"not of this shard ({shard}): another run judges it"


def is_verdict(result: Result) -> bool:
    """
    Whether *result* decides something of its SAE; that its weights are not another's is no measurement.

    Nor does an inconclusive one, which the smoke profile lets pass: with nothing but those, nothing was judged.
    """
    undecided = ("not_measured", "reported", "inconclusive")
    return result.outcome not in undecided and result.check != checks.DISTINCT.name


def is_red(outcome: Outcome, *, profile: str) -> bool:
    """Whether a check of that *outcome* fails."""
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
    Why a run is no pass although none of its checks is red; None: it is one.

    Args:
        results: what there is.
        selected: (subject, check) of what was to run; at least one.
        sae_ids: of the whole release.
        comparisons: (subject, check) of every comparison with the baseline that there could be.
        baseline: as it was asked for.
    """
    judged = {(result.sae_id, result.check) for result in results if is_verdict(result)}
    is_left_out = comparisons and not set(comparisons) & set(selected)  # by -k and the like: as asked
    if baseline is not None and not is_left_out and not set(comparisons) & judged:
        return errors.nothing_compared(baseline)
    of_release = set(sae_ids)  # a stack may be impossible, and its SAEs all the same sound
    without = {sae_id for sae_id, _ in selected} & of_release - {sae_id for sae_id, _ in judged}
    return errors.sae_not_judged(sorted(without)) if without or not judged else None
