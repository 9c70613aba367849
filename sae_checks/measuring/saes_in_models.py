"""The SAEs of a plan, each with the model that it is measured in. Models and weights are loaded when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sae_checks import errors
from sae_checks.model.interface import LanguageModel
from sae_checks.model.loading import Models
from sae_checks.plan.plan import Plan
from sae_checks.release.release import Sae
from sae_checks.saes import free_memory
from sae_checks.saes.lazy_weights import LazySae, WeightCache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SaeInModel:
    """An SAE with the model that it is measured in."""

    described: Sae
    sae: LazySae
    model: LanguageModel
    prepends_bos: bool
    """whether every sequence begins with a BOS."""


class SaesInModels:
    """The SAEs of a plan with their models, by SAE id."""

    def __init__(self, plan: Plan, announce: Callable[[str], None] = lambda _step: None) -> None:
        """*announce* is called with what begins to be loaded."""
        self._plan = plan
        self._announce = announce
        self._announced = set[str]()
        self._models = Models(plan)
        self._caches: dict[torch.device, WeightCache] = {}
        self._found: dict[str, SaeInModel | errors.SaeChecksError] = {}

    def get(self, sae_id: str) -> SaeInModel:
        """
        The SAE *sae_id* with its model, without loading its weights.

        Raises:
            SaeError: the SAE cannot be measured; the same error each time.
            MeasuringError: its model cannot be loaded; the same error each time.
        """
        if sae_id not in self._found:
            try:
                self._found[sae_id] = self._load(sae_id)
            except (errors.SaeError, errors.MeasuringError) as problem:
                self._found[sae_id] = problem
        found = self._found[sae_id]
        if isinstance(found, errors.SaeChecksError):
            raise found
        return found

    def candidates(self) -> list[SaeInModel]:
        """The SAEs that can be measured unless loading their weights fails, in the release's order."""
        found = []
        for sae_id in self._plan.release.sae_ids:
            try:
                found.append(self.get(sae_id))
            except (errors.SaeError, errors.MeasuringError):
                continue  # the checks of this SAE report it
        return found

    def measurable(self) -> list[SaeInModel]:
        """The SAEs that can be measured, in the release's order; loads their weights to find out."""
        return [sae_in_model for sae_in_model in self.candidates() if sae_in_model.sae.can_be_loaded()]

    def weight_cache(self, device: torch.device) -> WeightCache:
        """The cache of SAE weights on *device*."""
        if device not in self._caches:
            self._caches[device] = WeightCache(
                lambda: free_memory.bytes_for_saes(self._plan.options.memory_gib, device)
            )
        return self._caches[device]

    def groups(self, together: Sequence[SaeInModel]) -> list[list[SaeInModel]]:
        """Split *together*, SAEs of one model, into groups whose weights fit into memory."""
        by_sae = {sae_in_model.sae: sae_in_model for sae_in_model in together}
        cache = self.weight_cache(together[0].model.device)
        return [[by_sae[sae] for sae in group] for group in cache.groups_that_fit(list(by_sae))]

    def _load(self, sae_id: str) -> SaeInModel:
        described = self._plan.release.sae(sae_id)
        prepends_bos = self._prepends_bos(described)
        name = self._plan.model_of(described).name
        if name not in self._announced:
            self._announced.add(name)
            self._announce(f"loading {Path(name).name}")
        model = self._models.of(described)
        head_slice = _head_slice(model, described)
        self._check_special_tokens(described, model)
        # not facts.processing: TransformerLens has centred the model's weights then, and so its activations
        center = described.center_writing_weights and model.uses_layer_norm and not model.facts.processing
        lazy = LazySae(
            described, self.weight_cache(model.device), device=model.device, center=center, head_slice=head_slice
        )
        return SaeInModel(described=described, sae=lazy, model=model, prepends_bos=prepends_bos)

    def _prepends_bos(self, described: Sae) -> bool:
        asked = self._plan.options.bos
        if asked != "auto":
            return asked == "bos"
        if described.prepend_bos is None:
            raise errors.bos_unknown(described.sae_id)
        return described.prepend_bos

    def _check_special_tokens(self, described: Sae, model: LanguageModel) -> None:
        special, excluded = model.tokenizer.all_special_ids, described.exclude_special_tokens
        if excluded and self._plan.options.special_tokens == "replace":
            raise errors.trained_without_special_tokens(described.sae_id)
        if not isinstance(excluded, bool) and (others := sorted(set(excluded) - set(special))):
            supported = f"special tokens of the tokenizer ({special})"
            raise errors.not_supported(described.sae_id, "exclude_special_tokens", str(others), supported)


def _head_slice(model: LanguageModel, described: Sae) -> slice:
    """
    The part of its hooks' last dimension that *described* reads and writes: one head's, or all.

    Raises:
        SaeError: its widths are not the model's, or the model has no such head.
    """
    hooks, of_sae = (described.hook, described.hook_out), (described.d_in, described.d_out)
    widths = [model.width(described.sae_id, hook) for hook in hooks]
    head_slice = slice(0, None)
    if described.head is not None:
        if described.head >= model.n_heads:
            raise errors.no_such_head(described.sae_id, described.head, model.n_heads)
        d_head = widths[0] // model.n_heads
        head_slice = slice(described.head * d_head, (described.head + 1) * d_head)
        widths = [d_head, d_head]
    for hook, width, d in zip(hooks, widths, of_sae, strict=True):
        if d != width:
            raise errors.wrong_width(described.sae_id, hook, d, width)
    return head_slice
