"""Runs that end without a pass."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.wording import listed, said, shown


def no_check_ran(paths: Sequence[str]) -> str:
    return said(
        "no check of the release ran: this is not a pass",
        expected="at least one check with a verdict",
        got=f"none, from {listed(paths)}",
        attempt="no path at all, or --pyargs sae_checks.gate; look for a path in addopts, and for -k, -m or --deselect",
    )


def sae_not_judged(sae_ids: Sequence[str]) -> str:
    return said(
        f"{len(sae_ids)} SAE(s) of the release got no verdict: this is not a pass",
        expected="every SAE judged by at least one of the checks selected for it",
        got=f"no verdict for {listed(sae_ids)}",
        attempt="read the reasons of the skips and warnings above (pytest -rs)",
    )


def checks_are_red(cells: Sequence[str]) -> str:
    return said(
        f"{len(cells)} check(s) did not pass",
        expected="every check that was selected passed, was reported, or was not measured for a stated reason",
        got=listed(cells),
        attempt="read the verdicts above; sae-checks report RECORD shows them with what they rest on",
    )


def nothing_compared(baseline: str) -> str:
    return said(
        f"nothing was compared with the baseline {shown(baseline)}",
        expected="a verdict on at least one difference",
        got="none; the skips and warnings above say why (pytest -rs)",
        attempt="a baseline that has measured the same checks of the same SAEs",
    )
