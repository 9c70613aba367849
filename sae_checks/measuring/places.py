"""Where else in the model an SAE would be at home: what it explains at other hooks than its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from sae_checks import errors
from sae_checks.diagnosis import NextSae
from sae_checks.losses import Moments
from sae_checks.measuring.moment_sums import MomentSums
from sae_checks.measuring.scoring import Batch
from sae_checks.model.interface import CleanPass, LanguageModel
from sae_checks.release import hooks
from sae_checks.saes.lazy_weights import LazySae
from sae_checks.saes.sae import LoadedSae, Reconstruction, Reconstructs
from sae_checks.saes.splice import preprocess

Pair = tuple[str, str]
"""a hook that is read, and the hook that is written; the same one but for transcoders."""


class Moved:
    """An SAE at other hooks than its own. Implements `Reconstructs`."""

    def __init__(self, sae: Reconstructs, pair: Pair) -> None:
        self.sae_id = sae.sae_id
        self.hook, self.hook_out = pair
        self.head_slice = sae.head_slice
        self.n_training_context_tokens = sae.n_training_context_tokens
        self.center = sae.center
        self._sae = sae

    def reconstruct(self, x: torch.Tensor) -> Reconstruction:
        """As the SAE at home."""
        return self._sae.reconstruct(x)


def tensor_of(pair: Pair) -> tuple[object, object]:
    """What tells *pair* from others: `resid_post` of a block is the same tensor as `resid_pre` of the next."""
    read, written = (_tensor_of(hooks.parse_known(name)) for name in pair)
    return read, written


def _tensor_of(hook: hooks.Hook) -> object:
    if hook.boundary is not None:
        return hook.boundary
    return (hook.layer, "resid_mid") if hook.place in ("mlp_in", "resid_mid") else hook.name


def other_places(sae: Reconstructs, model: LanguageModel, others: Iterable[Reconstructs]) -> tuple[Pair, ...]:
    """
    The places of *model* that may be the home of *sae*, without its own.

    These are the hooks of the *others* of its release, the same place in every block, and for an SAE that writes where
    it reads the other places of its block.
    """
    own: Pair = (sae.hook, sae.hook_out)
    read, written = (hooks.parse_known(hook) for hook in own)
    n_layers = model.facts.n_layers
    shifted = [
        (read.neighbour(step, n_layers), written.neighbour(step, n_layers)) for step in range(-n_layers, n_layers)
    ]
    found: list[Pair] = [(other.hook, other.hook_out) for other in others]
    found += [(a, b) for a, b in shifted if a is not None and b is not None]
    if read == written:
        found += [(name, name) for name in (known.replace("L", str(read.layer), 1) for known in hooks.KNOWN)]
    widths = [model.width(sae.sae_id, hook) for hook in own]
    by_tensor: dict[object, Pair] = {tensor_of(own): own}
    for pair in found:
        if tensor_of(pair) not in by_tensor and _widths(sae, model, pair) == widths:
            by_tensor[tensor_of(pair)] = pair
    return tuple(by_tensor.values())[1:]


def _widths(sae: Reconstructs, model: LanguageModel, pair: Pair) -> list[int] | None:
    """Widths of the activations at *pair*; None: the model has no such hook."""
    try:
        return [model.width(sae.sae_id, hook) for hook in pair]
    except errors.SaeError:
        return None


def moments_at(
    sae: Reconstructs, pairs: Sequence[Pair], passes: Sequence[tuple[Batch, CleanPass]], n_within: int
) -> list[Moments]:
    """The moments of *sae* at each of *pairs*, over the first *n_within* positions."""
    sums = [MomentSums(1 + max(int(batch.sequences.max()) for batch, _ in passes)) for _ in pairs]
    for batch, clean in passes:
        counted = batch.replaced.clone()
        counted[:, n_within:] = False
        for (read, written), of_pair in zip(pairs, sums, strict=True):
            output = sae.reconstruct(preprocess(clean.activation(read), read, sae)).output
            of_pair.add(batch, preprocess(clean.activation(written), written, sae), output, counted)
    return [of_pair.moments() for of_pair in sums]


def _next_sae(sae: Reconstructs, others: Sequence[LazySae]) -> LazySae | None:
    """The first of *others* whose hook is behind that of *sae*."""
    depth = hooks.parse_known(sae.hook_out).depth
    behind = [(d, i) for i, other in enumerate(others) if (d := hooks.parse_known(other.hook).depth) > depth]
    return others[min(behind)[1]] if behind else None


_CLEARLY, _AT_LEAST = 0.5, 0.02
"""share of the unexplained variance below which another place explains clearly better, and the least difference."""
_MUCH_LESS, _GOOD = 0.25, 0.9
"""the same share for the next SAE to be much worse than this one, and the explained variance that it must not reach."""
N_TOKENS_OF_SEARCH = 256


class Search:
    """The search for the place that an SAE explains clearly better than its own."""

    def __init__(self, sae: LoadedSae, model: LanguageModel, others: Sequence[LazySae], n_within: int) -> None:
        self._sae, self._n_within = sae, n_within
        self._others = [other for other in others if other.sae_id != sae.sae_id]
        self._passes: Sequence[tuple[Batch, CleanPass]] = ()
        self.own: Pair = (sae.hook, sae.hook_out)
        self.pairs = other_places(sae, model, self._others)
        self.n_sequences = max(2, N_TOKENS_OF_SEARCH // n_within)
        """sequences that the search needs."""
        self._next = _next_sae(sae, self._others)
        seen = (self.own, *self.pairs, *(() if self._next is None else ((self._next.hook, self._next.hook_out),)))
        self.hooks = frozenset(hook for pair in seen for hook in pair) if len(seen) > 1 else frozenset()
        self.best: Pair | None = None
        """the place, once `see` has been called; None: it explains no place clearly better."""

    def see(self, passes: Sequence[tuple[Batch, CleanPass]]) -> None:
        """Look for the place in the clean *passes*, which have captured `hooks`."""
        self._passes = passes
        self.best = self._better_place(self._sae, self.own, self.pairs) if self.pairs else None

    @property
    def home_of(self) -> LazySae | None:
        """The SAE whose own place was found."""
        if self.best is None:
            return None
        at = tensor_of(self.best)
        return next((other for other in self._others if tensor_of((other.hook, other.hook_out)) == at), None)

    @property
    def swapped_with(self) -> str | None:
        """Id of the SAE at the place that was found, if it explains this SAE's place clearly better than its own."""
        other = self.home_of
        if other is None or self.best is None:
            return None
        try:
            return other.sae_id if self._better_place(other, self.best, [self.own]) else None
        except (errors.SaeChecksError, RuntimeError):  # WHY: the other one may be broken, this one is diagnosed
            return None

    @property
    def copy_of(self) -> tuple[str, ...]:
        """Id of the SAE at the place that was found, if it has the same weights."""
        other = self.home_of
        try:
            return (other.sae_id,) if other is not None and other.fingerprint == self._sae.fingerprint else ()
        except errors.SaeError:  # WHY: as above
            return ()

    @property
    def worse_next(self) -> NextSae | None:
        """The next SAE of the release, if it leaves clearly more of its own hook unexplained than this one."""
        if self._next is None or not self._passes:
            return None
        try:
            (own,) = moments_at(self._sae, (self.own,), self._passes, self._n_within)
            (of_next,) = moments_at(self._next, ((self._next.hook, self._next.hook_out),), self._passes, self._n_within)
        except (errors.SaeChecksError, RuntimeError):  # WHY: as above
            return None
        explained = of_next.explained_variance
        is_worse = explained < _GOOD and 1 - own.explained_variance < _MUCH_LESS * (1 - explained)
        return NextSae(sae_id=self._next.sae_id, explained_variance=explained) if is_worse else None

    def _better_place(self, sae: Reconstructs, own: Pair, pairs: Sequence[Pair]) -> Pair | None:
        """The one of *pairs* that *sae* explains best, if clearly better than *own*."""
        here, *there = (
            each.best_explained_variance for each in moments_at(sae, (own, *pairs), self._passes, self._n_within)
        )
        best = max(range(len(there)), key=lambda i: -1.0 if math.isnan(there[i]) else there[i])
        is_better = 1 - there[best] < _CLEARLY * (1 - here) and there[best] > here + _AT_LEAST
        return pairs[best] if is_better else None
