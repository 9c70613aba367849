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
    is_exact: bool = False
    """its numbers are no estimates from a sample, and what is expected of them stands with each prompt."""

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
        Measure(name="probability_clean", unit="fraction"),
        Measure(name="probability_spliced", unit="fraction"),
        Measure(name="reciprocal_rank_clean", unit="fraction"),
        Measure(name="reciprocal_rank_spliced", unit="fraction"),
        Measure(name="accuracy_clean_within", unit="fraction"),
        Measure(name="accuracy_drop_within", unit="fraction"),
        Measure(name="accuracy_clean_beyond", unit="fraction"),
        Measure(name="accuracy_drop_beyond", unit="fraction"),
        Measure(name="answers_lost", unit="fraction"),
        Measure(name="answers_won", unit="fraction"),
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
USABLE_CONTEXT = Check(
    name="usable_context",
    title="usable context",
    measures=(
        Measure(name="usable_context", unit="fraction of training context"),
        Measure(name="usable_context_tokens", unit="tokens"),
        Measure(name="measured_context_tokens", unit="tokens"),
    ),
)
SPARSITY = Check(
    name="sparsity",
    title="sparsity",
    measures=(
        Measure(name="l0", unit="latents/token"),
        Measure(name="l0_ratio", unit="measured/recorded"),
        Measure(name="l0_max", unit="latents/token"),
        Measure(name="l0_max_of_k", unit="fraction"),
        Measure(name="dead_latents", unit="fraction"),
        Measure(name="replaced_tokens", unit="tokens"),
        Measure(name="explained_variance", unit="fraction"),
    ),
)
GOLDEN = Check(
    name="golden",
    title="golden prompts",
    measures=(
        Measure(name="golden_probability_clean", unit="fraction"),
        Measure(name="golden_probability_spliced", unit="fraction"),
        Measure(name="probability_error", unit="tolerance"),
    ),
    is_exact=True,
)

CHECKS: tuple[Check, ...] = (CE_LOSS, LAMBADA, CBT, LONG_CONTEXT, USABLE_CONTEXT, SPARSITY, GOLDEN)


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
