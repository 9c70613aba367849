"""The model as TransformerLens's HookedTransformer, made from the same weights that transformers loaded."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Tokenizer
from sae_checks.model import blocks, hugging_face
from sae_checks.model.interface import Captures, CleanPass, Edit
from sae_checks.provenance import FileHash, ModelFacts
from sae_checks.release import hooks

_NO_NAME = "model"
_TEMPLATES = {"Gemma2ForCausalLM": "google/gemma-2-2b"}
"""Families that TransformerLens configures by the model's name alone, and a name of each."""
_SIZES = {
    "d_model": "hidden_size",
    "d_head": "head_dim",
    "n_heads": "num_attention_heads",
    "n_key_value_heads": "num_key_value_heads",
    "d_mlp": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_ctx": "max_position_embeddings",
    "d_vocab": "vocab_size",
    "eps": "rms_norm_eps",
    "window_size": "sliding_window",
    "attn_scores_soft_cap": "attn_logit_softcapping",
    "output_logits_soft_cap": "final_logit_softcapping",
}


def load(
    folder: Path, *, source: str | None = None, dtype: str, device: torch.device, processing: Sequence[str] = ()
) -> HookedModel:
    """
    The model and tokenizer in *folder*, with its weights processed as *processing* names it.

    transformers reads the files, as safely as for its own backend; TransformerLens is given the loaded model.

    Raises:
        MeasuringError: either cannot load it, or the two do not give the same predictions.
    """
    read = hugging_face.read(folder, dtype=dtype, device=device)
    try:
        model = _hooked(read.model, processing)
    except Exception as problem:
        raise errors.model_not_loaded(str(folder), f"TransformerLens: {type(problem).__name__}: {problem}") from problem
    _check_same_predictions(model, read.model, source or str(folder))
    return HookedModel(
        model,
        read.tokenizer,
        source=source or str(folder),
        architecture=type(read.model).__name__,
        processing=tuple(processing),
        weights=read.weights,
    )


class HookedModel:
    """A LanguageModel over a HookedTransformer (see `interface.LanguageModel`)."""

    def __init__(
        self,
        model: Any,  # Any: TransformerLens's attributes are not typed
        tokenizer: Tokenizer,
        *,
        source: str,
        architecture: str,
        processing: tuple[str, ...] = (),
        weights: tuple[FileHash, ...] = (),
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        config = self._model.cfg
        if not config.attn_only:
            self._model.set_use_hook_mlp_in(True)  # else that hook exists and never fires
        self.tokenizer = tokenizer
        self.device = torch.device(config.device)
        self.uses_layer_norm = "LN" in (config.normalization_type or "")
        self.n_heads: int = config.n_heads
        self.n_logits: int = config.d_vocab_out
        self.facts = ModelFacts(
            source=source,
            architecture=architecture,
            backend="transformer_lens",
            processing=processing,
            dtype=str(config.dtype).removeprefix("torch."),
            device=self.device.type,
            n_layers=config.n_layers,
            d_model=config.d_model,
            n_context_tokens=config.n_ctx,
            weights=weights,
        )

    def width(self, sae_id: str, hook: str) -> int:
        parsed, config = hooks.parse(hook), self._model.cfg
        if parsed is None:
            raise errors.unknown_hook(sae_id, hook, hooks.KNOWN)
        if parsed.layer >= config.n_layers:
            raise errors.hook_beyond_model(sae_id, hook, config.n_layers)
        is_there = parsed.place == "mlp_module_in" or hook in self._model.hook_dict
        if not is_there or (config.attn_only and "mlp" in parsed.place):
            raise errors.hook_not_here(sae_id, hook, self.facts.architecture, "its HookedTransformer has no such hook")
        return int(config.n_heads * config.d_head if parsed.place == "z" else config.d_model)

    @torch.inference_mode()
    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        captures = Captures(hooks)
        starts = {hugging_face.start(hook) for hook in hooks}
        at = [(f"blocks.{boundary}.hook_resid_pre", captures.at_boundary(boundary)) for boundary in starts]
        hidden = self._run(None, tokens, [*at, *((hook, captures.at_hook(hook)) for hook in hooks)])
        return captures.clean_pass(tokens, hidden)

    @torch.inference_mode()
    def resume(self, clean: CleanPass, edits: Mapping[str, Edit]) -> torch.Tensor:
        taps = {hook: blocks.Tap(edit) for hook, edit in edits.items()}
        start = min(map(hugging_face.start, edits))
        hidden = self._run(start, clean.boundaries[start], list(taps.items()))
        for hook, tap in taps.items():
            if tap.n != 1:
                raise errors.hook_fired(hook, tap.n, 1)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            out = hidden.new_empty(*hidden.shape[:-1], self.n_logits, dtype=torch.float32)
        unembed, cap = self._model.unembed, self._model.cfg.output_logits_soft_cap
        if hidden.dtype == torch.float32:
            torch.matmul(hidden, unembed.W_U, out=out).add_(unembed.b_U)
        else:
            out.copy_(unembed(hidden))
        if cap and cap > 0:
            out.div_(cap).tanh_().mul_(cap)
        return out

    def _run(self, start: int | None, given: torch.Tensor, edits: Sequence[tuple[str, Edit]]) -> torch.Tensor:
        """From tokens, or from the residual stream before block *start*, to what the unembedding reads."""
        n_layers = self._model.cfg.n_layers
        at_end = [edit for hook, edit in edits if hugging_face.start(hook) == n_layers]
        within = [(hook, edit) for hook, edit in edits if hugging_face.start(hook) < n_layers]
        residual = given
        if start is None or start < n_layers:
            with self._edited(within):
                residual = self._model(given, start_at_layer=start, stop_at_layer=n_layers)
        for edit in at_end:
            residual = edit(residual)
        norm = self._model.cfg.normalization_type
        return cast(torch.Tensor, residual if norm is None else self._model.ln_final(residual))

    @contextmanager
    def _edited(self, edits: Sequence[tuple[str, Edit]]) -> Iterator[None]:
        named, handles = [], []
        for hook, edit in edits:
            parsed = hooks.parse(hook)
            assert parsed is not None, hook  # `width` has been asked first
            if parsed.place == "mlp_module_in":
                handles.append(blocks.on_input(self._model.blocks[parsed.layer].mlp, edit))
                continue
            name = hook if parsed.boundary is None else f"blocks.{parsed.boundary}.hook_resid_pre"
            named.append((name, _by_head(edit) if parsed.place == "z" else _plain(edit)))
        with blocks.attached(handles), self._model.hooks(fwd_hooks=named):
            yield


def _plain(edit: Edit) -> Callable[..., torch.Tensor]:
    return lambda carried, hook: edit(carried)  # noqa: ARG005 -- TransformerLens gives it by that name


def _by_head(edit: Edit) -> Callable[..., torch.Tensor]:
    """TransformerLens keeps heads apart, (batch, seq, head, d_head); here they lie side by side."""
    return lambda carried, hook: edit(carried.flatten(-2)).reshape(carried.shape)  # noqa: ARG005


def _hooked(model: Any, processing: Sequence[str]) -> Any:  # Any: TransformerLens is not typed
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # HookedTransformer's deprecation, and the caller's `-W error` is the caller's
        from transformer_lens import loading_from_pretrained as loading

        name = _TEMPLATES.get(type(model).__name__, _NO_NAME)
        # TransformerLens asks the Hub for a configuration by name; the one that lies on disk is the one that counts.
        own = copy.deepcopy(model.config)
        own.architectures = [type(model).__name__]
        own.n_ctx = own.max_position_embeddings  # a name that GPT-2's older configurations have
        own_config = mock.Mock(from_pretrained=lambda *_, **__: own)
        with mock.patch.multiple(loading, AutoConfig=own_config, get_official_model_name=lambda name: name):
            config = loading.get_pretrained_model_config(name, device=str(model.device), dtype=model.dtype)
            if name != _NO_NAME:
                config = _resized(config, model.config)
            weights = loading.get_pretrained_state_dict(name, config, model, dtype=model.dtype)
        return built(config, weights, processing).to(model.device)


def built(config: Any, weights: Mapping[str, torch.Tensor], processing: Sequence[str]) -> Any:  # Any: as above
    """
    The HookedTransformer of a configuration and weights in its own names, processed as *processing* names it.

    Raises:
        ValueError: *weights* lacks matrices: TransformerLens would take for them whatever the memory held.
    """
    from transformer_lens import HookedTransformer

    config.tokenizer_name = None  # tokens are made elsewhere; by that name it would ask the Hub
    hooked = HookedTransformer(config)
    matrices = {name for name, _ in hooked.named_parameters() if name.rpartition(".")[2].lstrip("_").startswith("W_")}
    if lacking := sorted(matrices - {*weights}):
        raise ValueError(f"its weights lack {len(lacking)} matrices, {lacking[0]} among them")
    asked = {"fold_ln", "center_writing_weights", "fold_value_biases", "refactor_factored_attn_matrices"}
    hooked.load_and_process_state_dict(
        {key: value.clone() for key, value in weights.items()},  # processing works in place
        center_unembed=False,
        **{key: key in processing for key in sorted(asked)},
    )
    return hooked


def _resized(config: Any, own: Any) -> Any:
    """The family's *config* with the sizes of the model's *own*."""
    sizes = {ours: getattr(own, theirs) for ours, theirs in _SIZES.items()}
    kinds = ["local" if kind == "sliding_attention" else "global" for kind in own.layer_types]
    scale = float(own.query_pre_attn_scalar) ** 0.5
    return replace(config, **sizes, attn_types=kinds, d_vocab_out=own.vocab_size, attn_scale=scale, rotary_dim=None)


@torch.inference_mode()
def _check_same_predictions(hooked: Any, model: Any, source: str) -> None:
    n_vocabulary = model.config.get_text_config().vocab_size
    tokens = (torch.arange(min(8, hooked.cfg.n_ctx), device=model.device) * 7 % n_vocabulary)[None]
    expected, got = (
        torch.log_softmax(logits.float(), -1)[..., :n_vocabulary]
        for logits in (model(input_ids=tokens, use_cache=False).logits, hooked(tokens))
    )
    difference = float((expected - got).abs().max())
    if not difference <= 1e-2:
        raise errors.model_not_understood(
            source, f"TransformerLens's log-probabilities differ from transformers' by {difference:g}"
        )
