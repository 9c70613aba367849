"""One SAE on a few batches of text, and what its splice costs when the reconstruction is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sae_checks.losses import Floats, Moments
from sae_checks.measuring.moment_sums import MomentSums, without_sinks
from sae_checks.measuring.scoring import Batch, Progress, score
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes import latents
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import preprocess, replace_at

Outputs = Sequence[torch.Tensor]
"""(batch, seq, d_out), one for each batch: something in place of the reconstruction."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """One batch with what the SAE makes of it."""

    batch: Batch
    clean: CleanPass
    counted: torch.Tensor
    """(batch, seq) replaced positions within the training context."""
    x: torch.Tensor
    """(batch, seq, d_in) the SAE's input."""
    target: torch.Tensor
    """(batch, seq, d_out) what it should reconstruct."""
    output: torch.Tensor
    """(batch, seq, d_out) its reconstruction."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Increase:
    """CE increase of every scored prediction within the training context. All (n_predictions,)."""

    position: Floats
    nats: Floats

    @property
    def mean(self) -> float:
        return float(self.nats.mean()) if len(self.nats) else float("nan")

    def share_of(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float | None:
        """The share of the *chosen* predictions in the whole increase; None: the whole is not above 0."""
        whole = float(self.nats.sum())
        return float(self.nats[chosen].sum()) / whole if whole > 0 else None

    def is_costliest(self, share: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which predictions are the *share* of them that cost most; at least one."""
        chosen = np.zeros(len(self.nats), dtype=np.bool_)
        chosen[np.argsort(-self.nats, kind="stable")[: max(1, round(share * len(self.nats)))]] = True
        return chosen


class Variants:
    """An SAE on a few batches of text, and variants of its reconstruction."""

    def __init__(
        self, model: LanguageModel, sae: Reconstructs, passes: Iterable[tuple[Batch, CleanPass]], n_within: int
    ) -> None:
        """*n_within* is the number of positions that are measured, those of the training context."""
        self.model, self.sae, self.n_within = model, sae, n_within
        self.seen = [self._see(batch, clean) for batch, clean in passes]
        self.n_sequences = 1 + max(int(seen.batch.sequences.max()) for seen in self.seen)

    @property
    def output(self) -> Outputs:
        """The reconstruction itself."""
        return [seen.output for seen in self.seen]

    @cached_property
    def contributions(self) -> list[latents.Contributions] | str:
        """The latents of each batch, or a text that says why they are not known."""
        found = [latents.contributions(self.sae, seen.x, seen.output) for seen in self.seen]
        problem = next((each for each in found if isinstance(each, str)), None)
        return [each for each in found if not isinstance(each, str)] if problem is None else problem

    @property
    def mean_norm(self) -> float:
        """Mean norm of the SAE's input, without attention sinks."""
        norms = [seen.x.norm(dim=-1)[without_sinks(seen.target, seen.counted)] for seen in self.seen]
        return float(torch.cat(norms).double().mean())

    def at_scale(self, factor: float, factor_out: float) -> Outputs:
        """The reconstruction of *factor* times the input, divided by *factor_out*."""
        return [self.sae.reconstruct(seen.x * factor).output / factor_out for seen in self.seen]

    def with_b_dec(self, added: torch.Tensor) -> Outputs:
        """The reconstruction with *added* (d_in,) added to b_dec, which is subtracted from the input, too."""
        return [self.sae.reconstruct(seen.x - added).output + added for seen in self.seen]

    def without(self, left_out: Sequence[int]) -> Outputs | None:
        """The reconstruction without the latents *left_out*; None: it is no sum of latents."""
        if isinstance(self.contributions, str):
            return None
        indices = torch.tensor(list(left_out), device=self.model.device)
        return [
            latents.without(found, seen.output, indices)
            for seen, found in zip(self.seen, self.contributions, strict=True)
        ]

    def vector(self, values: Floats) -> torch.Tensor:
        """*values* (d_out,) as float32 on the model's device."""
        return torch.from_numpy(values).to(self.model.device, torch.float32)

    def moments(self, outputs: Outputs) -> Moments:
        """The moments of the activations and *outputs*."""
        sums = MomentSums(self.n_sequences)
        for seen, output in zip(self.seen, outputs, strict=True):
            sums.add(seen.batch, seen.target, output, seen.counted)
        return sums.moments()

    def removal_effects(self) -> torch.Tensor | str:
        """What leaving out each latent adds to the squared error (d_sae,), without sinks; or why it is not known."""
        if isinstance(self.contributions, str):
            return self.contributions
        of_batches = [
            latents.removal_effects(found, seen.target - seen.output, without_sinks(seen.target, seen.counted))
            for seen, found in zip(self.seen, self.contributions, strict=True)
        ]
        return torch.stack(of_batches).sum(0)

    def increases(
        self, variants: Mapping[str, Outputs], progress: Progress
    ) -> dict[str, Increase]:  # a dict: by name of the variant
        """The CE increase with each of *variants* spliced; *progress* is called with (tokens run, all tokens)."""
        n_done, n_all = 0, len(variants) * sum(seen.batch.tokens.numel() for seen in self.seen)
        progress(n_done, n_all)
        positions: list[Floats] = []
        nats: dict[str, list[Floats]] = {name: [] for name in variants}
        for i, seen in enumerate(self.seen):
            hidden = []
            for outputs in variants.values():
                hidden.append(self._resume(seen, outputs[i]))
                n_done += seen.batch.tokens.numel()
                progress(n_done, n_all)
            clean, *scores = score(self.model, seen.batch, [seen.clean.hidden, *hidden], ranks=False)
            is_within = seen.batch.position < self.n_within
            positions.append(seen.batch.position[is_within].astype(np.float64))
            for name, found in zip(variants, scores, strict=True):
                nats[name].append((found.ce_nats.astype(np.float64) - clean.ce_nats)[is_within])
        position = np.concatenate(positions)
        return {name: Increase(position=position, nats=np.concatenate(each)) for name, each in nats.items()}

    def _see(self, batch: Batch, clean: CleanPass) -> Seen:
        counted = batch.replaced.clone()
        counted[:, self.n_within :] = False
        x = preprocess(clean.activation(self.sae.hook), self.sae.hook, self.sae)
        target = preprocess(clean.activation(self.sae.hook_out), self.sae.hook_out, self.sae)
        output = self.sae.reconstruct(x).output
        return Seen(batch=batch, clean=clean, counted=counted, x=x, target=target, output=output)

    def _resume(self, seen: Seen, output: torch.Tensor) -> torch.Tensor:
        """Final hidden states (batch, seq, d_model) with *output* in place of the activation."""
        written = seen.clean.activation(self.sae.hook_out)
        value = replace_at(written, output.to(written.dtype), seen.batch.replaced, self.sae.head_slice)
        return self.model.resume(seen.clean, {self.sae.hook_out: replace_with(value)})
