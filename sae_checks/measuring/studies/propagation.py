"""The effect of one SAE's splice on later SAEs: on the activations at their hooks, and on their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sae_checks.losses import LaterSae, PropagationLosses
from sae_checks.measuring.scoring import Batch
from sae_checks.measuring.studies.study import ReconstructionSums, sum_counted
from sae_checks.model.interface import CleanPass, Edit, LanguageModel, replace_with
from sae_checks.release import hooks
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import Splice, preprocess, splice


class Propagation:
    """The study of one SAE's splice and of those *others* that read after the hook that it writes."""

    n_epochs = 1

    def __init__(self, spliced: Reconstructs, others: Sequence[Reconstructs], n_sequences: int) -> None:
        self._spliced = spliced
        later = [sae for sae in others if _depth(sae.hook) > _depth(spliced.hook_out)]
        self._later = [_LaterSums(sae, n_sequences) for sae in sorted(later, key=lambda sae: _depth(sae.hook))]
        self._own = ReconstructionSums(n_sequences)
        captured = {spliced.hook, spliced.hook_out}
        for sums in self._later:
            captured |= {sums.sae.hook, sums.sae.hook_out, _residual(sums.sae.hook)}
        self.hooks = frozenset(captured)

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, epoch: int) -> None:  # noqa: ARG002 -- one epoch
        spliced = self._spliced
        made = splice(clean.activation(spliced.hook), clean.activation(spliced.hook_out), batch.replaced, spliced)
        counted = _counted(batch, spliced)
        self._own.add(batch, made, counted)
        if not self._later:
            return
        disturbed: dict[str, torch.Tensor] = {}  # by hook
        edits: dict[str, Edit] = {spliced.hook_out: replace_with(made.activation)}
        for sums in self._later:
            for hook in (sums.sae.hook, sums.sae.hook_out):
                edits[hook] = _capturing(disturbed, hook)
        model.resume(clean, edits)
        for sums in self._later:
            sums.add(batch, clean, disturbed, counted & _counted(batch, sums.sae))

    def losses(self) -> PropagationLosses:
        return PropagationLosses(own=self._own.sums(), later=tuple(sums.losses() for sums in self._later))


class _LaterSums:
    """Accumulates `LaterSae` batch by batch."""

    def __init__(self, sae: Reconstructs, n_sequences: int) -> None:
        self.sae = sae
        self._n_tokens = np.zeros(n_sequences, dtype=np.int64)
        self._sums = np.zeros((4, n_sequences))  # error, norm, residual's norm, cosine
        self._clean, self._disturbed = ReconstructionSums(n_sequences), ReconstructionSums(n_sequences)

    def add(self, batch: Batch, clean: CleanPass, disturbed: dict[str, torch.Tensor], counted: torch.Tensor) -> None:
        """Add the positions *counted* (batch, seq); *disturbed* has activations after the earlier splice, by hook."""
        sae, rows = self.sae, batch.sequences
        # WHY preprocess: splicing a centred SAE removes the mean over d_model, which no LayerNorm sees
        x, x_disturbed = (preprocess(a, sae.hook, sae) for a in (clean.activation(sae.hook), disturbed[sae.hook]))
        residual = clean.activation(_residual(sae.hook)).float()
        if sae.center:
            residual = residual - residual.mean(-1, keepdim=True)
        self._n_tokens[rows] = counted.sum(-1).cpu().numpy()
        values = (
            (x_disturbed - x).square().sum(-1),
            x.square().sum(-1),
            residual.square().sum(-1),
            torch.nn.functional.cosine_similarity(x_disturbed, x, -1),
        )
        for sums, of_tokens in zip(self._sums, values, strict=True):
            sums[rows] = sum_counted(of_tokens, counted)
        self._clean.add(batch, self._splice(clean.activation(sae.hook), clean.activation(sae.hook_out), batch), counted)
        self._disturbed.add(batch, self._splice(disturbed[sae.hook], disturbed[sae.hook_out], batch), counted)

    def _splice(self, read: torch.Tensor, written: torch.Tensor, batch: Batch) -> Splice:
        return splice(read, written, batch.replaced, self.sae)

    def losses(self) -> LaterSae:
        error, norm, residual_norm, cosine = self._sums
        return LaterSae(
            sae_id=self.sae.sae_id,
            hook=self.sae.hook,
            n_tokens=self._n_tokens,
            error_squared=error,
            norm_squared=norm,
            residual_norm_squared=residual_norm,
            cosine=cosine,
            clean=self._clean.sums(),
            disturbed=self._disturbed.sums(),
        )


def _capturing(into: dict[str, torch.Tensor], hook: str) -> Edit:
    def capture(activation: torch.Tensor) -> torch.Tensor:
        into[hook] = activation
        return activation

    return capture


def _depth(hook: str) -> float:
    return hooks.parse_known(hook).depth


def _residual(hook: str) -> str:
    """The hook itself if it is on the residual stream between blocks, else the input of its block."""
    parsed = hooks.parse_known(hook)
    return hook if parsed.boundary is not None else f"blocks.{parsed.layer}.hook_resid_pre"


def _counted(batch: Batch, sae: Reconstructs) -> torch.Tensor:
    """(batch, seq) replaced positions within the training context of *sae*."""
    counted = batch.replaced.clone()
    counted[:, sae.n_training_context_tokens or counted.shape[1] :] = False
    return counted
