"""Loads the language models of a plan, each once, in the backend that its SAEs need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sae_checks import errors
from sae_checks.model import hugging_face, transformer_lens, transformer_lens_files, transformers_files
from sae_checks.model.interface import LanguageModel
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.plan import Plan
from sae_checks.provenance import FileHash
from sae_checks.release import hooks
from sae_checks.release.release import Sae


def pick_device(name: str) -> torch.device:
    """The device *name*; for "auto" the first available of cuda, mps and cpu."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """What distinguishes two loaded models."""

    source: str
    backend: str
    processing: tuple[str, ...]


class Models:
    """The language models of a plan, each loaded when an SAE first needs it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loaded: dict[_Key, LanguageModel | errors.MeasuringError] = {}

    def of(self, described: Sae) -> LanguageModel:
        """
        The model that *described* was trained on, in a backend in which it can be spliced.

        That is transformers, unless TransformerLens's weight processing changes the SAE's activations or only
        TransformerLens has the hooks or the model.

        Raises:
            SaeError: no backend has the SAE's hooks.
            MeasuringError: the model cannot be loaded.
        """
        if self._plan.model_of(described).in_memory is not None:
            return self._load_for(described, "transformers")
        if _needs_transformer_lens(described) or self._plan.model_of(described).transformer_lens is not None:
            return self._load_for(described, "transformer_lens")
        try:
            return self._load_for(described, "transformers")
        except (errors.HookNotHereError, errors.ModelNotUnderstoodError) as problem:
            try:
                return self._load_for(described, "transformer_lens")
            except errors.SaeChecksError:
                raise problem from None

    def _load_for(self, described: Sae, backend: str) -> LanguageModel:
        """Load the model of *described*, and check that the backend has its hooks."""
        if backend == "transformers" and _needs_transformer_lens(described):
            raise errors.needs_transformer_lens(described.sae_id, [key for key, _ in described.model_kwargs])
        model = self._load(described, backend)
        for hook in {described.hook, described.hook_out}:
            model.width(described.sae_id, hook)
        return model

    def _load(self, described: Sae, backend: str) -> LanguageModel:
        source = self._plan.model_of(described)
        # transformers' weights are never processed: centring is applied to activations instead
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
        if source.in_memory is not None:
            given = source.in_memory
            weights = (FileHash(name="in memory", sha256=transformers_files.hash_of_weights(given.model)),)
            return hugging_face.HuggingFaceModel(given.model, given.tokenizer, source=source.name, weights=weights)
        options = self._plan.options
        device = pick_device(options.device)
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
"""weight processing -> whether it changes the activation at a hook in a way that only TransformerLens computes."""


def _needs_transformer_lens(described: Sae) -> bool:
    parsed = [hooks.parse_known(hook) for hook in (described.hook, described.hook_out)]
    return any(key in _CHANGED_BY and _CHANGED_BY[key](hook) for key, _ in described.model_kwargs for hook in parsed)
