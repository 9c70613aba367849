"""Which SAEs of a release are spliced together: all of one kind of place, one at each hook. Ground."""

from __future__ import annotations

from dataclasses import dataclass

from sae_checks.release import hooks
from sae_checks.release.release import Release, Sae


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """SAEs that can be in place at once."""

    stack_id: str
    sae_ids: tuple[str, ...]
    """by the depth of their hooks."""
    problem: str | None
    """why they cannot."""


def of(release: Release) -> tuple[Stack, ...]:
    """
    The stacks of *release*: one for each kind of place that has more than one SAE.

    Input and output of neighbouring blocks are one kind: the residual stream between blocks. SAEs that cannot be used
    are left out: their own checks are errors.
    """
    kinds: dict[str, list[Sae]] = {}
    for sae in release.saes:
        if isinstance(sae, Sae):
            kinds.setdefault(_kind(sae), []).append(sae)
    return tuple(_stack(kind, saes) for kind, saes in sorted(kinds.items()) if len(saes) > 1)


def _kind(sae: Sae) -> str:
    read, written = (hooks.parse(hook) for hook in (sae.hook, sae.hook_out))
    assert read is not None
    assert written is not None
    names = ["resid" if hook.boundary is not None else hook.place for hook in (read, written)]
    return names[0] if sae.hook == sae.hook_out else "-".join(names)


def _stack(kind: str, saes: list[Sae]) -> Stack:
    in_order = sorted(saes, key=lambda sae: (sae.depth, sae.sae_id))
    places: dict[tuple[float, int | None], list[str]] = {}
    for sae in in_order:
        places.setdefault((sae.depth, sae.head), []).append(sae.sae_id)
    shared = next((ids for ids in places.values() if len(ids) > 1), None)
    problem = None
    if shared is not None:
        problem = f"{len(shared)} SAEs are at one place ({', '.join(shared[:3])}): choose one with --sae-id"
    elif len({(sae.model_name, sae.model_revision) for sae in in_order}) > 1:
        problem = "they were trained on different models"
    return Stack(stack_id=f"all of {kind}", sae_ids=tuple(sae.sae_id for sae in in_order), problem=problem)
