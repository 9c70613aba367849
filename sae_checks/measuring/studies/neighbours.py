"""
An SAE at its own hooks and elsewhere: spliced at the same places of the neighbouring blocks, where it must cost more,
and at the other places of its block, of which it must explain less.
"""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import NeighbourLosses
from sae_checks.measuring.moment_sums import without_sinks
from sae_checks.measuring.places import Moved, other_places, tensor_of
from sae_checks.measuring.scoring import Batch, SpanSums, add_within, score
from sae_checks.measuring.sequence_sums import n_within
from sae_checks.measuring.studies.study import ReconstructionSums
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


def places_of_block(sae: Reconstructs, model: LanguageModel) -> tuple[str, ...]:
    """
    The other places of the block of *sae* on the residual stream, or beside it, without those of a neighbouring hook.

    Only for an SAE that writes where it reads, all heads. WHY not both kinds: what adds to the stream is so much
    smaller that the other kind is no rival.
    """
    if sae.hook != sae.hook_out or sae.head_slice != slice(0, None):
        return ()
    beside = {tensor_of(pair) for pair in neighbouring_hooks(sae, model.facts.n_layers)}
    own = hooks.parse_known(sae.hook)
    places = _ON_STREAM if own.place in _ON_STREAM else _BESIDE_STREAM
    found = [
        (hooks.parse_known(read), (read, written))
        for read, written in other_places(sae, model, ())
        if tensor_of((read, written)) not in beside
    ]
    return tuple(hook.name for hook, _ in found if hook.layer == own.layer and hook.place in places)


_ON_STREAM = ("resid_pre", "resid_mid", "mlp_in", "resid_post")
_BESIDE_STREAM = ("z", "attn_out", "mlp_out")


class Neighbours:
    """The study of one SAE at its own hooks, at *other_hooks*, pairs (read, written), and at *places* of its block."""

    n_epochs = 1

    def __init__(
        self,
        sae: Reconstructs,
        other_hooks: Sequence[tuple[str, str]],
        sequences: Sequences,
        places: Sequence[str] = (),
    ) -> None:
        self._sae = sae
        self._pairs = ((sae.hook, sae.hook_out), *other_hooks)
        self._n_within = n_within(sae, sequences)
        self._spans = [SpanSums(len(sequences.rows)) for _ in self._pairs]
        self._places = tuple(places)
        self._fits = [ReconstructionSums(len(sequences.rows)) for _ in (sae.hook, *places)]
        # WHY without the places: of all SAEs together they would take several times the memory of the other hooks
        self.hooks = frozenset(hook for pair in self._pairs for hook in pair)

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, epoch: int) -> None:  # noqa: ARG002 -- one epoch
        hidden = [clean.hidden]
        for read, written in self._pairs:
            made = splice(clean.activation(read), clean.activation(written), batch.replaced, self._sae)
            hidden.append(model.resume(clean, {written: replace_with(made.activation)}))
        if self._places:
            self._add_places(batch, model.clean(batch.tokens, {self._sae.hook, *self._places}))
        add_within(self._spans, batch, score(model, batch, hidden), self._n_within)

    def losses(self) -> NeighbourLosses:
        own, *others = (span.span() for span in self._spans)
        return NeighbourLosses(
            own=own,
            hooks=tuple(written for _, written in self._pairs[1:]),
            spans=tuple(others),
            places=self._places,
            fits=tuple(fit.sums() for fit in self._fits) if self._places else (),
        )

    def _add_places(self, batch: Batch, clean: CleanPass) -> None:
        """Add how well the SAE reconstructs its own hook and the places of its block; attention sinks do not count."""
        counted = batch.replaced.clone()
        counted[:, self._n_within :] = False
        for hook, fit in zip((self._sae.hook, *self._places), self._fits, strict=True):
            made = splice(
                clean.activation(hook), clean.activation(hook), batch.replaced, Moved(self._sae, (hook, hook))
            )
            fit.add(batch, made, without_sinks(made.target, counted))
