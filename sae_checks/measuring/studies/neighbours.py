"""An SAE spliced at its own hooks and at the same places of the neighbouring blocks, where it must cost more."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import NeighbourLosses
from sae_checks.measuring.scoring import Batch, SpanSums, add_within, score
from sae_checks.measuring.sequence_sums import n_within
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.release import hooks
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import splice


def neighbouring_hooks(sae: Reconstructs, n_layers: int) -> tuple[tuple[str, str], ...]:
    """The (read, written) hooks at the same places of the blocks before and after those of *sae*."""
    own = [hooks.parse_known(hook) for hook in (sae.hook, sae.hook_out)]
    pairs = []
    for step in (-1, 1):
        read, written = (hook.neighbour(step, n_layers) for hook in own)
        if read is not None and written is not None:
            pairs.append((read, written))
    return tuple(pairs)


class Neighbours:
    """The study of one SAE at its own hooks and at *other_hooks*, pairs (read, written)."""

    n_epochs = 1

    def __init__(self, sae: Reconstructs, other_hooks: Sequence[tuple[str, str]], sequences: Sequences) -> None:
        self._sae = sae
        self._pairs = ((sae.hook, sae.hook_out), *other_hooks)
        self._n_within = n_within(sae, sequences)
        self._spans = [SpanSums(len(sequences.rows)) for _ in self._pairs]
        self.hooks = frozenset(hook for pair in self._pairs for hook in pair)

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, epoch: int) -> None:  # noqa: ARG002 -- one epoch
        hidden = [clean.hidden]
        for read, written in self._pairs:
            made = splice(clean.activation(read), clean.activation(written), batch.replaced, self._sae)
            hidden.append(model.resume(clean, {written: replace_with(made.activation)}))
        add_within(self._spans, batch, score(model, batch, hidden), self._n_within)

    def losses(self) -> NeighbourLosses:
        own, *others = (span.span() for span in self._spans)
        return NeighbourLosses(own=own, hooks=tuple(written for _, written in self._pairs[1:]), spans=tuple(others))
