"""Runs that end without a pass."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.wording import listed, message, shown, typed

_WITHOUT = "pytest --sae-release=NAME without paths, -k, -m and --deselect (addopts may hold some)"


def no_check_ran(paths: Sequence[str]) -> str:
    return message(
        "no check of the release ran: this is not a pass",
        expected="at least one check with a verdict",
        got=f"none, from {listed(paths)}",
        attempt=_WITHOUT,
    )


def nothing_selected(
    asked: Sequence[str], checks: Sequence[str], sae_ids: Sequence[str], check: str, sae_id: str
) -> str:
    """*check*, *sae_id*: those whose names are most like what was asked; empty: none is."""
    return message(
        "no check of the release ran: this is not a pass",
        expected=f"one of the checks {listed(checks, n_most=30)}; of {listed(sae_ids)}",
        got=f"none, from {listed(asked)}",
        attempt=(f"-k {shown(check)}" if check else typed("--sae-id", sae_id) if sae_id else _WITHOUT),
    )


def sae_not_judged(sae_ids: Sequence[str]) -> str:
    return message(
        f"{len(sae_ids)} SAE(s) of the release got no verdict: this is not a pass",
        expected="a verdict on every SAE, from at least one of the checks selected for it",
        got=f"no verdict for {listed(sae_ids)}",
        attempt="pytest -rs, which shows why checks were skipped",
    )


def checks_are_red(cells: Sequence[str]) -> str:
    return message(
        f"{len(cells)} check(s) did not pass",
        expected="every selected check passed, reported, or not measured for a stated reason",
        got=listed(cells),
        attempt="sae-checks report RECORD, which shows each verdict and what it rests on",
    )


def nothing_compared(baseline: str) -> str:
    return message(
        f"nothing was compared with the baseline {shown(baseline)}",
        expected="a verdict on at least one difference",
        got="none",
        attempt="pytest -rs, which shows why; or a baseline with the same checks of the same SAEs",
    )
