"""A diagnosis -> the numbers behind its sentence, as rows of tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from sae_checks.diagnosis import Corrected, Diagnosis, Place
from sae_checks.report import wording

_TOLD = ("sentence", "why_none")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionRow:
    """The SAE as it is, or with one correction; None: not measured."""

    name: str
    explained_variance: float | None
    ce_increase: float | None
    """nats/token."""
    recovered: float | None
    """share of the CE increase that is gone."""


def corrections(found: Diagnosis) -> tuple[CorrectionRow, ...]:
    """The SAE as it is and with each correction that was tried."""
    as_it_is = CorrectionRow(
        name="as it is",
        explained_variance=found.explained_variance,
        ce_increase=found.ce_increase_nats_per_token,
        recovered=None,
    )
    return (as_it_is, *_corrections(found)) if found.explained_variance is not None else ()


def _corrections(found: Diagnosis) -> Iterator[CorrectionRow]:
    for field in fields(found):
        value = getattr(found, field.name)
        name = field.name.replace("_", " ")
        if isinstance(value, Place):
            name, value = f"at {value.hook}", value.corrected
        if isinstance(value, Corrected):
            yield CorrectionRow(
                name=name,
                explained_variance=value.explained_variance,
                ce_increase=value.ce_increase_nats_per_token,
                recovered=value.recovered_loss,
            )


def numbers(found: Diagnosis) -> tuple[tuple[str, str], ...]:
    """Every other measurement, as (name, text)."""
    return tuple(_numbers(found))


def _numbers(found: Diagnosis) -> Iterator[tuple[str, str]]:
    shown = {"explained_variance", "ce_increase_nats_per_token"}
    for field in fields(found):
        value = getattr(found, field.name)
        name = field.name.replace("_", " ")
        if field.name in (*_TOLD, *shown) or value is None or value == ():
            continue
        if isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif isinstance(value, int | float):
            yield name, wording.number(value)
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, tuple):
            yield name, ", ".join(map(str, value))
