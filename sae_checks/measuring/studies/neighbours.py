"""An SAE where it belongs, and at the same place of the blocks beside: it must cost least where it belongs."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import NeighbourLosses
from sae_checks.measuring.scoring import Batch, SpanSums, score
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.release import hooks
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import splice


def beside(sae: Reconstructs, n_layers: int) -> tuple[tuple[str, str], ...]:
    """The (read, written) hooks of the same places in the blocks before and after those of *sae*."""
    parsed = [hooks.parse(hook) for hook in (sae.hook, sae.hook_out)]
    found = []
    for step in (-1, 1):
        moved = [hook.neighbour(step, n_layers) for hook in parsed if hook is not None]
        if None not in moved:
            found.append((str(moved[0]), str(moved[1])))
    return tuple(found)


class Neighbours:
    """One SAE at its own hooks and at each of *places*."""

    n_looks = 1

    def __init__(self, sae: Reconstructs, places: Sequence[tuple[str, str]], sequences: Sequences) -> None:
        self._sae = sae
        self._places = ((sae.hook, sae.hook_out), *places)
        n, n_positions = sequences.tokens.shape
        self._n_within = min(n_positions, sae.n_training_context_tokens or n_positions)
        self._spans = [SpanSums(n) for _ in self._places]
        self.hooks = frozenset(hook for place in self._places for hook in place)

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, look: int) -> None:  # noqa: ARG002 -- one look
        hidden = [clean.hidden]
        for read, written in self._places:
            made = splice(clean.activation(read), clean.activation(written), batch.replaced, self._sae)
            hidden.append(model.resume(clean, {written: replace_with(made.activation)}))
        of_clean, *found = score(model, batch, hidden)
        chosen = batch.position < self._n_within
        for span, of_one in zip(self._spans, found, strict=True):
            span.add(batch.row[chosen], of_clean.ce_nats[chosen], of_one.ce_nats[chosen], of_one.kl_nats[chosen])

    def losses(self) -> NeighbourLosses:
        own, *others = (span.span() for span in self._spans)
        return NeighbourLosses(own=own, hooks=tuple(written for _, written in self._places[1:]), spans=tuple(others))
