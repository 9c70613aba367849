"""Stacks: SAEs of a release that are spliced together, all at the same kind of place, one at each hook."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from sae_checks.release import hooks
from sae_checks.release.release import Release, Sae


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """SAEs that are spliced together."""

    stack_id: str
    sae_ids: tuple[str, ...]
    """in order of depth."""
    problem: str | None
    """why they cannot be spliced together; None: they can."""


def of(release: Release) -> tuple[Stack, ...]:
    """
    The stacks of *release*: one for each kind of place at which it has more than one SAE.

    The inputs and outputs of blocks are one kind, the residual stream. Broken SAEs are left out: their own checks are
    errors.
    """
    saes_by_place: dict[str, list[Sae]] = {}
    for sae in release.saes:
        if isinstance(sae, Sae):
            saes_by_place.setdefault(_place(sae), []).append(sae)
    return tuple(_stack(place, saes) for place, saes in sorted(saes_by_place.items()) if len(saes) > 1)


def possible_ids() -> tuple[str, ...]:
    """The id of every stack that a release may have."""
    places = dict.fromkeys("resid" if place.startswith("resid") else place for place in hooks.PLACES)
    return tuple(_id(place) for place in (*places, *("-".join(pair) for pair in product(places, repeat=2))))


def _id(place: str) -> str:
    return f"all of {place}"


def _place(sae: Sae) -> str:
    """Kind of place: "resid", "mlp_out", ...; "READ-WRITTEN" for transcoders."""
    parsed = [hooks.parse_known(hook) for hook in (sae.hook, sae.hook_out)]
    names = ["resid" if hook.boundary is not None else hook.place for hook in parsed]
    return names[0] if sae.hook == sae.hook_out else "-".join(names)


def _stack(place: str, saes: list[Sae]) -> Stack:
    in_order = sorted(saes, key=lambda sae: (sae.depth, sae.sae_id))
    ids_at: dict[tuple[float, int | None], list[str]] = {}
    for sae in in_order:
        ids_at.setdefault((sae.depth, sae.head), []).append(sae.sae_id)
    shared = next((ids for ids in ids_at.values() if len(ids) > 1), None)
    problem = None
    if shared is not None:
        problem = f"{len(shared)} SAEs are at one place ({', '.join(shared[:3])}): choose one with --sae-id"
    elif len({(sae.model_name, sae.model_revision) for sae in in_order}) > 1:
        problem = "they were trained on different models"
    return Stack(stack_id=_id(place), sae_ids=tuple(sae.sae_id for sae in in_order), problem=problem)
