"""What a splice does further down: at every later SAE's hook, and to the later SAE itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sae_checks.losses import Disturbed, PropagationLosses
from sae_checks.measuring.scoring import Batch
from sae_checks.measuring.studies.study import ReconstructionSums, summed
from sae_checks.model.interface import CleanPass, Edit, LanguageModel, replace_with
from sae_checks.release import hooks
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import Splice, preprocess, splice


class Propagation:
    """Follows the splice of one SAE through *others*, all that read behind the hook that it writes."""

    n_looks = 1

    def __init__(self, spliced: Reconstructs, others: Sequence[Reconstructs], n_sequences: int) -> None:
        self._spliced = spliced
        behind = [sae for sae in others if _depth(sae.hook) > _depth(spliced.hook_out)]
        self._later = [_Later(sae, n_sequences) for sae in sorted(behind, key=lambda sae: _depth(sae.hook))]
        self._own = ReconstructionSums(n_sequences)
        read = {spliced.hook, spliced.hook_out}
        for later in self._later:
            read |= {later.sae.hook, later.sae.hook_out, _residual(later.sae.hook)}
        self.hooks = frozenset(read)

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, look: int) -> None:  # noqa: ARG002 -- one look
        one = self._spliced
        made = splice(clean.activation(one.hook), clean.activation(one.hook_out), batch.replaced, one)
        within = _within(batch, one)
        self._own.add(batch, made, within)
        if not self._later:
            return
        arrived: dict[str, torch.Tensor] = {}
        edits: dict[str, Edit] = {one.hook_out: replace_with(made.activation)}
        for later in self._later:
            for hook in (later.sae.hook, later.sae.hook_out):
                edits[hook] = _keeping(arrived, hook)
        model.resume(clean, edits)
        for later in self._later:
            later.add(batch, clean, arrived, within & _within(batch, later.sae))

    def losses(self) -> PropagationLosses:
        return PropagationLosses(own=self._own.sums(), later=tuple(later.losses() for later in self._later))


class _Later:
    """Sums at one later SAE."""

    def __init__(self, sae: Reconstructs, n_sequences: int) -> None:
        self.sae = sae
        self._n_tokens = np.zeros(n_sequences, dtype=np.int64)
        self._sums = np.zeros((4, n_sequences))  # error, norm, residual's norm, cosine
        self._clean, self._disturbed = ReconstructionSums(n_sequences), ReconstructionSums(n_sequences)

    def add(self, batch: Batch, clean: CleanPass, arrived: dict[str, torch.Tensor], counted: torch.Tensor) -> None:
        sae = self.sae
        # WHY preprocess: splicing a centred SAE removes the mean over d_model, which no LayerNorm sees.
        x, disturbed = (preprocess(source, sae.hook, sae) for source in (clean.activation(sae.hook), arrived[sae.hook]))
        residual = clean.activation(_residual(sae.hook)).float()
        if sae.center:
            residual = residual - residual.mean(-1, keepdim=True)
        rows = batch.sequences
        self._n_tokens[rows] = counted.sum(-1).cpu().numpy()
        for into, values in zip(
            self._sums,
            (
                (disturbed - x).square().sum(-1),
                x.square().sum(-1),
                residual.square().sum(-1),
                torch.nn.functional.cosine_similarity(disturbed, x, -1),
            ),
            strict=True,
        ):
            into[rows] = summed(values, counted)
        self._clean.add(batch, self._look(clean.activation(sae.hook), clean.activation(sae.hook_out), batch), counted)
        self._disturbed.add(batch, self._look(arrived[sae.hook], arrived[sae.hook_out], batch), counted)

    def _look(self, read: torch.Tensor, written: torch.Tensor, batch: Batch) -> Splice:
        return splice(read, written, batch.replaced, self.sae)

    def losses(self) -> Disturbed:
        error, norm, residual_norm, cosine = self._sums
        return Disturbed(
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


def _keeping(into: dict[str, torch.Tensor], hook: str) -> Edit:
    def keep(carried: torch.Tensor) -> torch.Tensor:
        into[hook] = carried
        return carried

    return keep


def _depth(hook: str) -> float:
    parsed = hooks.parse(hook)
    assert parsed is not None, hook
    return parsed.depth


def _residual(hook: str) -> str:
    """The residual stream that belongs to *hook*: itself, or what its block reads."""
    parsed = hooks.parse(hook)
    assert parsed is not None, hook
    return hook if parsed.boundary is not None else f"blocks.{parsed.layer}.hook_resid_pre"


def _within(batch: Batch, sae: Reconstructs) -> torch.Tensor:
    """(batch, seq) replaced positions within the training context of *sae*."""
    counted = batch.replaced.clone()
    counted[:, sae.n_training_context_tokens or counted.shape[1] :] = False
    return counted
