"""Prompts whose answers are known: what they are. Ground: the limits hold them, the measuring wing runs them."""

from __future__ import annotations

from dataclasses import dataclass

from sae_checks.plan.options import SpecialTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenPrompt:
    """One prompt and how probable its answer is known to be."""

    prompt: str
    answer: str
    """what follows the prompt, with its leading space where it has one."""
    probability_clean: float
    """of the whole answer, all its tokens, by the untouched model."""
    probability_spliced: float
    """the same with the SAE's reconstruction in place."""
    tolerance: float
    """how far either may be off, absolute."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The golden prompts of one SAE, all tokenised and masked by one rule."""

    prompts: tuple[GoldenPrompt, ...]
    prepend_bos: bool
    special_tokens: SpecialTokens
    where: str
    """file and table in which they are written."""
