"""Losses of golden prompts -> readings: measured probabilities against known ones, without sample or interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_checks import checks, errors
from sae_checks.judging.estimates import Estimate, NotFinite, Reading
from sae_checks.losses import ItemLosses
from sae_checks.plan.golden_prompts import Golden, GoldenPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The measured answer to one golden prompt."""

    known: GoldenPrompt
    clean: float
    """probability of the whole answer."""
    spliced: float

    @property
    def error(self) -> float:
        """The larger deviation of the two probabilities from the known ones, in tolerances."""
        off = (self.clean - self.known.probability_clean, self.spliced - self.known.probability_spliced)
        return max(map(abs, off)) / self.known.tolerance

    def __str__(self) -> str:
        known = self.known
        return (
            f"  {errors.shown(known.prompt)!r} -> {errors.shown(known.answer)!r}: clean {self.clean:.4f} (expected "
            f"{known.probability_clean:g}), spliced {self.spliced:.4f} (expected {known.probability_spliced:g}), "
            f"tolerance {known.tolerance:g}"
        )


def answers(losses: ItemLosses, golden: Golden) -> tuple[Answer, ...]:
    """The answers to the prompts of *golden*, in their order; NaN if the losses are."""
    clean, spliced = np.exp(losses.clean_logprob_nats), np.exp(losses.spliced_logprob_nats)
    return tuple(
        Answer(known=known, clean=float(clean[i]), spliced=float(spliced[i])) for i, known in enumerate(golden.prompts)
    )


def readings(found: tuple[Answer, ...]) -> tuple[Reading, ...]:
    """Readings of `golden`: the mean probabilities over the prompts, and the error of the worst prompt."""
    check = checks.GOLDEN
    for i, answer in enumerate(found):
        if not np.isfinite(answer.clean + answer.spliced):
            where = f"the probability of the answer to golden prompt {i} is {answer.clean}, spliced {answer.spliced}"
            return tuple(NotFinite(measure=m.name, where=where) for m in check.measures)
    values = (
        float(np.mean([answer.clean for answer in found])),
        float(np.mean([answer.spliced for answer in found])),
        max(answer.error for answer in found),
    )
    return tuple(
        Estimate(measure=measure.name, value=value, low=value, high=value, unit=measure.unit, n=len(found))
        for measure, value in zip(check.measures, values, strict=True)
    )
