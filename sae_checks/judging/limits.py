"""Limits and margins: the numbers that a verdict holds a measure against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sae_checks import checks
from sae_checks.plan.golden_prompts import Golden

WORST_DIFFERENCE = 10.0
"""Margins by which one pair may be worse: the guard of a comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The limit of one measure of one check."""

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
    """the lower end of a range, *value* being the upper; None: the limit is no range."""
    worst: float | None = None
    """how many times the limit one sequence may cost at most if the check is to pass; None: the default of the plan."""

    @property
    def file(self) -> str | None:
        """The file in which it is written; None: the check itself has it."""
        return self.where.partition(" [")[0] if " [" in self.where else None

    @property
    def sides(self) -> tuple[Limit, ...]:
        """The limit itself, or the upper and the lower end of a range."""
        if self.floor is None:
            return (self,)
        return replace(self, floor=None), replace(self, kind="min", value=self.floor, floor=None)

    def allows(self, value: float) -> bool:
        """Whether *value* is on the limit or on its good side; False for NaN."""
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
    """By how much one measure of one check may be worse than in an earlier run."""

    check: str
    measure: str
    value: float
    """above 0, in *unit*."""
    unit: str
    source: str
    where: str

    def limit(self, on: Limit) -> Limit:
        """The limit of the difference after - before; *on*, the measure's own limit, says which way is worse."""
        return Limit(
            check=checks.NO_REGRESSION.name,
            measure="difference",
            kind=on.kind,
            value=self.value if on.kind == "max" else -self.value,
            unit=self.unit,
            source=self.source,
            where=self.where,
            floor=None if on.floor is None else -self.value,
            worst=WORST_DIFFERENCE,
        )


def golden_limit(golden: Golden) -> Limit:
    """The limit of the check `golden`: no prompt is further off than its tolerance."""
    return Limit(
        check=checks.GOLDEN.name,
        measure="probability_error",
        kind="max",
        value=1.0,
        unit="tolerance",
        source="; ".join(dict.fromkeys(prompt.source for prompt in golden.prompts)),
        where=golden.where,
    )


def no_copies_limit() -> Limit:
    """The limit of the check `distinct`: no two SAEs of a release have the same weights."""
    return Limit(
        check=checks.DISTINCT.name,
        measure="copies",
        kind="max",
        value=0.0,
        unit="SAEs",
        source="a release was published with one SAE's weights in two places",
        where="the check",
    )
