"""The interface of a model backend: a clean pass with captures, and resuming it from edited activations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Tokenizer
from sae_checks.provenance import ModelFacts

Edit = Callable[[torch.Tensor], torch.Tensor]
"""activation at a hook (batch, seq, width) -> activation to use instead."""


def replace_with(value: torch.Tensor) -> Edit:
    """The edit that puts *value* in place of the activation."""
    return lambda _: value


@contextmanager
def count_calls(edits: Mapping[str, Edit]) -> Iterator[dict[str, Edit]]:  # a dict: by hook name
    """
    Yield *edits* that count their calls.

    Raises:
        MeasuringError: within the block, an edit was not called exactly once.
    """
    n_calls = dict.fromkeys(edits, 0)

    def counted(hook: str, edit: Edit) -> Edit:
        def call(activation: torch.Tensor) -> torch.Tensor:
            n_calls[hook] += 1
            return edit(activation)

        return call

    yield {hook: counted(hook, edit) for hook, edit in edits.items()}
    for hook, n in n_calls.items():
        if n != 1:
            raise errors.hook_fired(hook, n, 1)


def probe_tokens(n_context_tokens: int, n_vocabulary: int, device: torch.device) -> torch.Tensor:
    """A few different tokens (1, n_tokens), on which backends check themselves."""
    return (torch.arange(min(8, n_context_tokens), device=device) * 7 % n_vocabulary)[None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CleanPass:
    """One forward pass of the clean model, with what is needed to resume it."""

    tokens: torch.Tensor
    """(batch, seq)."""
    hidden: torch.Tensor
    """(batch, seq, d_model) input of the unembedding."""
    captured: Mapping[str, tuple[torch.Tensor, ...]]
    """by hook name, one activation (batch, seq, width) for each time that the hook fired."""
    boundaries: Mapping[int, torch.Tensor]
    """by number of blocks before it, the residual stream (batch, seq, d_model) between two blocks."""

    def activation(self, hook: str) -> torch.Tensor:
        """
        The activation at *hook*, (batch, seq, width).

        Raises:
            MeasuringError: the hook did not fire exactly once.
        """
        fired = self.captured[hook]
        if len(fired) != 1:
            raise errors.hook_fired(hook, len(fired), 1)
        return fired[0]

    def first(self, n_positions: int) -> CleanPass:
        """The pass cut to the first *n_positions*, which in a causal model do not depend on later ones."""
        return CleanPass(
            tokens=self.tokens[:, :n_positions],
            hidden=self.hidden[:, :n_positions],
            captured={hook: tuple(t[:, :n_positions] for t in fired) for hook, fired in self.captured.items()},
            boundaries={i: residual[:, :n_positions] for i, residual in self.boundaries.items()},
        )


class Captures:
    """Collects activations of a clean pass, by edits that change nothing."""

    def __init__(self, hooks: Collection[str]) -> None:
        self._captured: dict[str, list[torch.Tensor]] = {hook: [] for hook in hooks}
        self._boundaries: dict[int, torch.Tensor] = {}

    def at_hook(self, hook: str) -> Edit:
        """The edit that captures the activation at *hook*."""

        def capture(activation: torch.Tensor) -> torch.Tensor:
            self._captured[hook].append(activation)
            return activation

        return capture

    def at_boundary(self, boundary: int) -> Edit:
        """The edit that captures the residual stream after *boundary* blocks."""

        def capture(residual: torch.Tensor) -> torch.Tensor:
            self._boundaries[boundary] = residual
            return residual

        return capture

    def clean_pass(self, tokens: torch.Tensor, hidden: torch.Tensor) -> CleanPass:
        """The captured pass over *tokens* (batch, seq) that gave *hidden* (batch, seq, d_model)."""
        captured = {hook: tuple(fired) for hook, fired in self._captured.items()}
        return CleanPass(tokens=tokens, hidden=hidden, captured=captured, boundaries=self._boundaries)


class LanguageModel(Protocol):
    """A causal language model in evaluation mode; every call runs without gradients."""

    facts: ModelFacts
    tokenizer: Tokenizer
    device: torch.device
    uses_layer_norm: bool
    """subtracting the mean of a residual vector changes nothing downstream."""
    n_heads: int
    n_logits: int
    """logits per position: the vocabulary and its padding."""

    def width(self, sae_id: str, hook: str) -> int:
        """
        Last dimension of the activation at *hook*; at `hook_z`, n_heads * d_head.

        Raises:
            SaeError: the model has no such hook; *sae_id* is named in the message.
        """

    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        """Run *tokens* (batch, seq), and capture the activations at *hooks* and what resuming from them needs."""

    def resume(self, clean: CleanPass, edits: Mapping[str, Edit]) -> torch.Tensor:
        """
        Run the blocks from the first edited hook on, with the activation at each hook of *edits* edited.

        Args:
            clean: a pass that has captured the first edited hook.
            edits: by hook name.

        Returns:
            Final hidden states (batch, seq, d_model).

        Raises:
            MeasuringError: a hook did not fire exactly once.
        """

    def logits(self, hidden: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """Float32 logits (..., n_logits) of *hidden* states (..., d_model), written to *out* if it is given."""
