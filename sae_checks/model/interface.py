"""What measuring asks of a backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from sae_checks.corpora.sequences import Tokenizer
from sae_checks.provenance import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CleanPass:
    """One forward pass of the untouched model."""

    hidden: torch.Tensor
    """(batch, seq, d_model) what the unembedding reads."""
    activations: Mapping[str, torch.Tensor]
    """by hook name, (batch, seq, d_model)."""


class LanguageModel(Protocol):
    """A causal language model in evaluation mode; every call runs without gradients."""

    facts: ModelFacts
    tokenizer: Tokenizer
    device: torch.device
    uses_layer_norm: bool
    """subtracting a residual vector's mean changes nothing downstream."""

    def check_hook(self, sae_id: str, hook: str, d_in: int) -> None:
        """Raise SaeError if *hook* is not one of this model's, or not *d_in* wide."""

    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        """Run *tokens* (batch, seq) and capture *hooks*. MeasuringError if one does not fire exactly once."""

    def resume(self, tokens: torch.Tensor, hook: str, activation: torch.Tensor) -> torch.Tensor:
        """The final hidden states (batch, seq, d_model) with *activation* in place of what *hook* carries."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 logits (rows, vocabulary) of hidden states (rows, d_model)."""
