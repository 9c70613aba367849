"""Limits and margins: the numbers that a verdict holds a measure against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sae_checks import checks
from sae_checks.plan.golden_prompts import Golden


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How far one measure of one check may go."""

    check: str
    measure: str
    kind: Literal["max", "min"]
    value: float
    """in *unit*."""
    unit: str
    source: str
    """where the number comes from."""
    where: str
    """file and table in which it is written."""
    floor: float | None = None
    """of a range: the least it may be, *value* being the most."""

    @property
    def sides(self) -> tuple[Limit, ...]:
        """Itself; of a range its two ends."""
        if self.floor is None:
            return (self,)
        return replace(self, floor=None), replace(self, kind="min", value=self.floor, floor=None)

    def allows(self, value: float) -> bool:
        """True on the limit and on its good side; False for NaN, since every comparison is."""
        if self.floor is not None:
            return self.floor <= value <= self.value
        return value <= self.value if self.kind == "max" else value >= self.value

    def __str__(self) -> str:
        if self.floor is not None:
            return f"{self.floor:g} <= {self.measure} <= {self.value:g} {self.unit}"
        sign = "<=" if self.kind == "max" else ">="
        return f"{self.measure} {sign} {self.value:g} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """How much worse than in an earlier run one measure of one check may be: the least that should stop a release."""

    check: str
    measure: str
    value: float
    """above 0, in *unit*."""
    unit: str
    source: str
    where: str

    def limit(self, on: Limit) -> Limit:
        """What that allows the difference after - before, where *on* says which way is worse."""
        return Limit(
            check=checks.NO_REGRESSION.name,
            measure="difference",
            kind=on.kind,
            value=self.value if on.kind == "max" else -self.value,
            unit=self.unit,
            source=self.source,
            where=self.where,
            floor=None if on.floor is None else -self.value,
        )


def limit_of(golden: Golden) -> Limit:
    """That no golden prompt is further off than its tolerance."""
    return Limit(
        check=checks.GOLDEN.name,
        measure="probability_error",
        kind="max",
        value=1.0,
        unit="tolerance",
        source="; ".join(dict.fromkeys(prompt.source for prompt in golden.prompts)),
        where=golden.where,
    )


def no_copies() -> Limit:
    """That no two SAEs of a release have the same weights; there is no release in which that is meant."""
    return Limit(
        check=checks.DISTINCT.name,
        measure="copies",
        kind="max",
        value=0.0,
        unit="SAEs",
        source="a release was published with one SAE's weights in two places",
        where="the check",
    )
