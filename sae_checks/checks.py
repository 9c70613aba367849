"""The catalogue: which checks there are, what each measures, and in which units. Ground: both wings speak of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number that a check reports."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question asked of every SAE."""

    name: str
    title: str
    """for people, at the head of a column."""
    measures: tuple[Measure, ...]

    def unit_of(self, measure: str) -> str | None:
        """The unit of *measure*, or None if this check has no such measure."""
        return next((m.unit for m in self.measures if m.name == measure), None)


_NATS = "nats/token"

CE_LOSS = Check(
    name="ce_loss",
    title="CE loss",
    measures=(
        Measure(name="ce_clean", unit=_NATS),
        Measure(name="ce_spliced", unit=_NATS),
        Measure(name="ce_ablated", unit=_NATS),
        Measure(name="ce_increase", unit=_NATS),
        Measure(name="ce_recovered", unit="fraction"),
        Measure(name="kl", unit=_NATS),
    ),
)
LAMBADA = Check(
    name="lambada",
    title="Lambada",
    measures=(
        Measure(name="accuracy_clean", unit="fraction"),
        Measure(name="accuracy_spliced", unit="fraction"),
        Measure(name="accuracy_drop", unit="fraction"),
        Measure(name="perplexity_clean", unit="perplexity"),
        Measure(name="perplexity_spliced", unit="perplexity"),
        Measure(name="perplexity_ratio", unit="ratio"),
    ),
)
CBT = Check(
    name="cbt",
    title="Children's Book Test",
    measures=(
        Measure(name="choice_accuracy_clean", unit="fraction"),
        Measure(name="choice_accuracy_spliced", unit="fraction"),
        Measure(name="choice_accuracy_drop", unit="fraction"),
        Measure(name="chance", unit="fraction"),
        Measure(name="answer_logprob_drop", unit="nats/query"),
    ),
)
LONG_CONTEXT = Check(
    name="long_context",
    title="long context",
    measures=(
        Measure(name="ce_increase_within", unit=_NATS),
        Measure(name="ce_increase_beyond", unit=_NATS),
        Measure(name="degradation", unit=_NATS),
    ),
)
SPARSITY = Check(
    name="sparsity",
    title="sparsity",
    measures=(
        Measure(name="l0", unit="latents/token"),
        Measure(name="explained_variance", unit="fraction"),
    ),
)

CHECKS: tuple[Check, ...] = (CE_LOSS, LAMBADA, CBT, LONG_CONTEXT, SPARSITY)


def named(name: str) -> Check:
    """
    The check called *name*.

    Raises:
        KeyError: there is none.
    """
    for check in CHECKS:
        if check.name == name:
            return check
    raise KeyError(name)
