"""The catalogue of checks, with the measures of each check and their units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number that a check reports."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check, which asks one question of each SAE or stack."""

    name: str
    title: str
    """name in tables and reports."""
    short: str
    """name at the head of a column."""
    measures: tuple[Measure, ...]
    """the numbers that it reports; a limit is on one of them."""
    of: Literal["sae", "stack", "comparison"] = "sae"
    """what it is measured on: each SAE, each stack of SAEs, or each other check, compared with an earlier run."""
    version: int = 1
    """raised when the definition of a measure changes; runs of different versions are not compared."""
    is_study: bool = False
    """it needs more than one splice or more than one SAE; `--sae-study-sequences=0` leaves it out."""
    is_optional: bool = False
    """it is only reported where no limit is written for it."""
    is_exact: bool = False
    """its measures are no estimates from a sample, and it has no limit in thresholds.toml."""
    sampled: str = "sequences"
    """what its values are of; empty: there is nothing to count."""
    ablated: tuple[str, ...] = ()
    """names of the measures that need a pass with zeros in place of the activation (zero ablation)."""

    def unit_of(self, measure: str) -> str | None:
        """The unit of *measure*, or None if this check has no such measure."""
        return next((m.unit for m in self.measures if m.name == measure), None)


_NATS = "nats/token"

CE_LOSS = Check(
    name="ce_loss",
    title="CE loss",
    short="ce",
    measures=(
        Measure(name="ce_clean", unit=_NATS),
        Measure(name="ce_spliced", unit=_NATS),
        Measure(name="ce_ablated", unit=_NATS),
        Measure(name="ce_increase", unit=_NATS),
        Measure(name="ce_recovered", unit="fraction"),
        Measure(name="kl", unit=_NATS),
    ),
    ablated=("ce_ablated", "ce_recovered"),
)
LAMBADA = Check(
    name="lambada",
    title="Lambada",
    short="lambada",
    sampled="passages",
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
    short="cbt",
    sampled="queries",
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
    short="long",
    measures=(
        Measure(name="ce_increase_within", unit=_NATS),
        Measure(name="ce_increase_beyond", unit=_NATS),
        Measure(name="degradation", unit=_NATS),
    ),
)
USABLE_CONTEXT = Check(
    name="usable_context",
    title="usable context",
    short="usable",
    measures=(
        Measure(name="usable_context", unit="fraction of training context"),
        Measure(name="usable_context_tokens", unit="tokens"),
        Measure(name="measured_context_tokens", unit="tokens"),
    ),
)
SPARSITY = Check(
    name="sparsity",
    title="sparsity",
    short="sparsity",
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
PROPAGATION = Check(
    name="propagation",
    title="propagation",
    short="propag",
    measures=(
        Measure(name="own_error", unit="fraction"),
        Measure(name="relative_error_next", unit="fraction"),
        Measure(name="cosine_next", unit="fraction"),
        Measure(name="amplification_next", unit="ratio"),
        Measure(name="relative_error_last", unit="fraction"),
        Measure(name="cosine_last", unit="fraction"),
        Measure(name="amplification_last", unit="ratio"),
    ),
    is_study=True,
)
NEXT_SAE = Check(
    name="next_sae",
    title="next SAE",
    short="next",
    measures=(
        Measure(name="next_explained_variance_clean", unit="fraction"),
        Measure(name="next_explained_variance", unit="fraction"),
        Measure(name="next_explained_variance_loss", unit="fraction"),
        Measure(name="next_l0_clean", unit="latents/token"),
        Measure(name="next_l0", unit="latents/token"),
    ),
    is_study=True,
)
LAST_SAE = Check(
    name="last_sae",
    title="last SAE",
    short="last",
    measures=(
        Measure(name="last_explained_variance_clean", unit="fraction"),
        Measure(name="last_explained_variance", unit="fraction"),
        Measure(name="last_explained_variance_loss", unit="fraction"),
        Measure(name="last_l0_clean", unit="latents/token"),
        Measure(name="last_l0", unit="latents/token"),
    ),
    is_study=True,
)
OWN_LAYER = Check(
    name="own_layer",
    title="own layer",
    short="own",
    measures=(
        Measure(name="increase_at_home", unit=_NATS),
        Measure(name="increase_at_neighbour", unit=_NATS),
        Measure(name="explained_variance_at_home", unit="fraction"),
        Measure(name="explained_variance_at_place", unit="fraction"),
        Measure(name="own_place_ratio", unit="ratio"),
        Measure(name="own_layer_margin", unit=_NATS),
    ),
    is_study=True,
)
RANDOM_ERROR = Check(
    name="random_error",
    title="random error",
    short="random",
    measures=(
        Measure(name="kl_spliced", unit=_NATS),
        Measure(name="kl_isotropic", unit=_NATS),
        Measure(name="kl_covariance", unit=_NATS),
        Measure(name="kl_ratio_isotropic", unit="ratio"),
        Measure(name="kl_ratio_covariance", unit="ratio"),
    ),
    is_optional=True,
    is_study=True,
)
DISTINCT = Check(
    name="distinct",
    title="distinct",
    short="distinct",
    sampled="",
    measures=(Measure(name="copies", unit="SAEs"),),
    is_exact=True,
    is_study=True,
)
STACKED = Check(
    name="stacked",
    title="stacked",
    short="stacked",
    measures=(
        Measure(name="stack_ce_clean", unit=_NATS),
        Measure(name="stack_ce_spliced", unit=_NATS),
        Measure(name="stack_ce_increase", unit=_NATS),
        Measure(name="stack_kl", unit=_NATS),
    ),
    of="stack",
    is_study=True,
)
STACKED_LAMBADA = Check(
    name="stacked_lambada",
    title="stacked, Lambada",
    short="lambada",
    sampled="passages",
    measures=(
        Measure(name="stack_accuracy_clean", unit="fraction"),
        Measure(name="stack_accuracy_spliced", unit="fraction"),
        Measure(name="stack_accuracy_drop", unit="fraction"),
    ),
    of="stack",
    is_optional=True,
    is_study=True,
)
GOLDEN = Check(
    name="golden",
    title="golden prompts",
    short="golden",
    sampled="prompts",
    measures=(
        Measure(name="golden_probability_clean", unit="fraction"),
        Measure(name="golden_probability_spliced", unit="fraction"),
        Measure(name="probability_error", unit="tolerance"),
    ),
    is_exact=True,
)

NO_REGRESSION = Check(
    name="no_regression",
    title="against the baseline",
    short="baseline",
    sampled="pairs",
    measures=tuple(Measure(name=name, unit="that of the measure") for name in ("before", "after", "difference")),
    of="comparison",
)
"""Compares the limited measure of every other check with an earlier run. It is not in `CHECKS`."""

CHECKS: tuple[Check, ...] = (
    CE_LOSS,
    LAMBADA,
    CBT,
    LONG_CONTEXT,
    USABLE_CONTEXT,
    SPARSITY,
    PROPAGATION,
    NEXT_SAE,
    LAST_SAE,
    OWN_LAYER,
    DISTINCT,
    RANDOM_ERROR,
    GOLDEN,
    STACKED,
    STACKED_LAMBADA,
)


def named(name: str) -> Check:
    """
    Find a check by its name.

    Raises:
        KeyError: there is no check of this name.
    """
    for check in (*CHECKS, NO_REGRESSION):
        if check.name == name:
            return check
    raise KeyError(name)
