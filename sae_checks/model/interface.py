"""What measuring asks of a backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Tokenizer
from sae_checks.provenance import ModelFacts

Edit = Callable[[torch.Tensor], torch.Tensor]
"""What a hook carries (batch, seq, width) -> what it shall carry."""


def instead(value: torch.Tensor) -> Edit:
    """The edit that puts *value* in place of what the hook carries."""
    return lambda _: value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CleanPass:
    """One forward pass of the untouched model, and what it takes to resume it."""

    tokens: torch.Tensor
    """(batch, seq)."""
    hidden: torch.Tensor
    """(batch, seq, d_model) what the unembedding reads."""
    captured: Mapping[str, tuple[torch.Tensor, ...]]
    """by hook name, one (batch, seq, width) for each time that it fired."""
    boundaries: Mapping[int, torch.Tensor]
    """by number of blocks before it, the residual stream (batch, seq, d_model) there."""

    def activation(self, hook: str) -> torch.Tensor:
        """
        What *hook* carried, (batch, seq, width).

        Raises:
            MeasuringError: it did not fire exactly once.
        """
        fired = self.captured[hook]
        if len(fired) != 1:
            raise errors.hook_fired(hook, len(fired), 1)
        return fired[0]

    def first(self, n_positions: int) -> CleanPass:
        """The same pass over the first *n_positions* alone: a causal model computes the same there."""
        return CleanPass(
            tokens=self.tokens[:, :n_positions],
            hidden=self.hidden[:, :n_positions],
            captured={hook: tuple(t[:, :n_positions] for t in fired) for hook, fired in self.captured.items()},
            boundaries={i: residual[:, :n_positions] for i, residual in self.boundaries.items()},
        )


class Captures:
    """What a clean pass leaves behind, filled by edits that change nothing."""

    def __init__(self, hooks: Collection[str]) -> None:
        self._captured: dict[str, list[torch.Tensor]] = {hook: [] for hook in hooks}
        self._boundaries: dict[int, torch.Tensor] = {}

    def at_hook(self, hook: str) -> Edit:
        """To be put at *hook*."""

        def capture(carried: torch.Tensor) -> torch.Tensor:
            self._captured[hook].append(carried)
            return carried

        return capture

    def at_boundary(self, boundary: int) -> Edit:
        """To be put at the residual stream behind *boundary* blocks."""

        def keep(residual: torch.Tensor) -> torch.Tensor:
            self._boundaries[boundary] = residual
            return residual

        return keep

    def clean_pass(self, tokens: torch.Tensor, hidden: torch.Tensor) -> CleanPass:
        """The pass over *tokens* that ended in *hidden*."""
        captured = {hook: tuple(fired) for hook, fired in self._captured.items()}
        return CleanPass(tokens=tokens, hidden=hidden, captured=captured, boundaries=self._boundaries)


class LanguageModel(Protocol):
    """A causal language model in evaluation mode; every call runs without gradients."""

    facts: ModelFacts
    tokenizer: Tokenizer
    device: torch.device
    uses_layer_norm: bool
    """subtracting a residual vector's mean changes nothing downstream."""
    n_heads: int
    n_logits: int
    """per position: tokens of the vocabulary, and what pads it."""

    def width(self, sae_id: str, hook: str) -> int:
        """
        The last dimension of what *hook* carries; heads of `hook_z` are laid side by side.

        Raises:
            SaeError: *hook* is not one of this model's.
        """

    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        """Run *tokens* (batch, seq), capture *hooks* and what resuming at them takes."""

    def resume(self, clean: CleanPass, edits: Mapping[str, Edit]) -> torch.Tensor:
        """
        The final hidden states (batch, seq, d_model) with every hook of *edits* changed by its edit.

        Only the blocks from the first edited hook on are run; *clean* must have been asked for that hook.

        Raises:
            MeasuringError: a hook did not fire exactly once.
        """

    def logits(self, hidden: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """Float32 logits (..., n_logits) of hidden states (..., d_model), written to *out* where that is given."""
