"""Which backend an SAE needs, and each model loaded once for all SAEs that need exactly it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sae_checks import errors
from sae_checks.model import hugging_face, transformer_lens, transformer_lens_files
from sae_checks.model.interface import LanguageModel
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.plan import Plan
from sae_checks.release import hooks
from sae_checks.release.release import Sae


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    source: str
    backend: str
    processing: tuple[str, ...]


class Models:
    """The language models of a plan, loaded when an SAE first needs them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loaded: dict[_Key, LanguageModel | errors.MeasuringError] = {}

    def of(self, described: Sae) -> LanguageModel:
        """
        The model that *described* was trained on, in a backend in which its hooks can be spliced.

        Left to itself that is transformers, unless TransformerLens's processing of the weights changes what the hooks
        carry, or only TransformerLens has them.

        Raises:
            SaeError: no backend has its hooks.
            MeasuringError: the model cannot be loaded.
        """
        asked = self._plan.options.backend
        if asked != "auto":
            return self._with_hooks(described, asked)
        if _needs_transformer_lens(described) or self._plan.model_of(described).transformer_lens is not None:
            return self._with_hooks(described, "transformer_lens")
        try:
            return self._with_hooks(described, "transformers")
        except (errors.HookNotHereError, errors.ModelNotUnderstoodError) as problem:
            try:
                return self._with_hooks(described, "transformer_lens")
            except errors.SaeChecksError:
                raise problem from None

    def _with_hooks(self, described: Sae, backend: str) -> LanguageModel:
        if backend == "transformers" and _needs_transformer_lens(described):
            raise errors.needs_transformer_lens(described.sae_id, [key for key, _ in described.model_kwargs])
        model = self._load(described, backend)
        for hook in {described.hook, described.hook_out}:
            model.width(described.sae_id, hook)
        return model

    def _load(self, described: Sae, backend: str) -> LanguageModel:
        source = self._plan.model_of(described)
        # transformers' weights are never processed: what centring changes is changed where an activation is read
        processing = tuple(key for key, _ in described.model_kwargs) if backend == "transformer_lens" else ()
        key = _Key(source=source.name, backend=backend, processing=processing)
        if key not in self._loaded:
            try:
                self._loaded[key] = self._read(source, key)
            except errors.MeasuringError as problem:
                self._loaded[key] = problem
        found = self._loaded[key]
        if isinstance(found, errors.MeasuringError):
            raise found
        return found

    def _read(self, source: ModelSource, key: _Key) -> LanguageModel:
        options = self._plan.options
        device: torch.device = hugging_face.pick_device(options.device)
        try:
            if source.transformer_lens is not None:
                files, processing = source.transformer_lens.fetch(), key.processing
                return transformer_lens_files.load(
                    files, source=key.source, dtype=options.dtype, device=device, processing=processing
                )
            folder = source.fetch()
        except errors.HubError as problem:
            raise errors.MeasuringError(str(problem)) from None
        if key.backend == "transformers":
            return hugging_face.load(folder, source=key.source, dtype=options.dtype, device=device)
        return transformer_lens.load(
            folder, source=key.source, dtype=options.dtype, device=device, processing=key.processing
        )


_CHANGED_BY: dict[str, Callable[[hooks.Hook], bool]] = {
    "fold_ln": lambda hook: hook.place == "mlp_module_in",
    "fold_value_biases": lambda hook: hook.place == "z",
    "refactor_factored_attn_matrices": lambda hook: hook.place == "z",
}
"""Processing that changes what some hooks carry, in a way that only TransformerLens computes."""


def _needs_transformer_lens(described: Sae) -> bool:
    parsed = [hooks.parse(hook) for hook in (described.hook, described.hook_out)]
    return any(
        key in _CHANGED_BY and hook is not None and _CHANGED_BY[key](hook)
        for key, _ in described.model_kwargs
        for hook in parsed
    )
