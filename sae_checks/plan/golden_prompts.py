"""Golden prompts: prompts whose answers have known probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from sae_checks.plan.options import SpecialTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenPrompt:
    """One prompt with its answer and the expected probabilities of that answer."""

    prompt: str
    answer: str
    """continuation of the prompt, with its leading space if it has one."""
    probability_clean: float
    """expected probability of all tokens of the answer in the clean model."""
    probability_spliced: float
    """the same with the SAE spliced in."""
    tolerance: float
    """largest allowed difference of either probability, absolute."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The golden prompts of one SAE, all tokenised and masked in the same way."""

    prompts: tuple[GoldenPrompt, ...]
    prepend_bos: bool
    special_tokens: SpecialTokens
    where: str
    """file and table that contain the prompts."""
