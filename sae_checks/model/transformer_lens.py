"""The TransformerLens backend: a HookedTransformer made from the weights that transformers loaded."""

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
from sae_checks.model import blocks, transformers_files
from sae_checks.model.interface import Captures, CleanPass, Edit, count_calls, probe_tokens
from sae_checks.provenance import FileHash, ModelFacts
from sae_checks.release import hooks
from sae_checks.release.hooks import Hook, parse_known

_NO_NAME = "model"
_NAME_OF_FAMILY = {"Gemma2ForCausalLM": "google/gemma-2-2b"}
"""a model name for each family that TransformerLens configures by name alone."""
_SIZES = {  # names in TransformerLens's configuration: names in transformers'
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
    Load the model and tokenizer in *folder*: transformers reads the files, TransformerLens converts the loaded model.

    Args:
        folder: files in transformers' format.
        source: the model's name in the record; None: the folder.
        dtype: of the weights.
        device: where the weights go.
        processing: TransformerLens's weight processing to apply, "fold_ln" and so on.

    Raises:
        MeasuringError: one of them cannot load the model, or their predictions differ.
    """
    files = transformers_files.read(folder, dtype=dtype, device=device)
    try:
        model = _hooked(files.model, processing)
    except Exception as problem:
        raise errors.model_not_loaded(str(folder), f"TransformerLens: {type(problem).__name__}: {problem}") from problem
    _check_same_predictions(model, files.model, source or str(folder))
    return HookedModel(
        model,
        files.tokenizer,
        source=source or str(folder),
        architecture=type(files.model).__name__,
        processing=tuple(processing),
        weights=files.weights,
    )


class HookedModel:
    """An `interface.LanguageModel` that runs a HookedTransformer."""

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
            self._model.set_use_hook_mlp_in(True)  # TRAP: without this, hook_mlp_in exists but never fires
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
        starts = {parse_known(hook).first_block for hook in hooks}
        boundaries = [(f"blocks.{start}.hook_resid_pre", captures.at_boundary(start)) for start in starts]
        hidden = self._run(None, tokens, [*boundaries, *((hook, captures.at_hook(hook)) for hook in hooks)])
        return captures.clean_pass(tokens, hidden)

    @torch.inference_mode()
    def resume(self, clean: CleanPass, edits: Mapping[str, Edit]) -> torch.Tensor:
        start = min(parse_known(hook).first_block for hook in edits)
        with count_calls(edits) as counted:
            return self._run(start, clean.boundaries[start], list(counted.items()))

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
        """
        Compute the input of the unembedding, (batch, seq, d_model).

        Args:
            start: index of the first block to run; None: start from tokens.
            given: the residual stream before block *start*, or tokens.
            edits: pairs of hook name and edit, in the order in which they apply.
        """
        n_layers = self._model.cfg.n_layers
        parsed = [(parse_known(hook), edit) for hook, edit in edits]
        residual = given
        if start is None or start < n_layers:
            with self._attached([(hook, edit) for hook, edit in parsed if hook.first_block < n_layers]):
                residual = self._model(given, start_at_layer=start, stop_at_layer=n_layers)
        for hook, edit in parsed:
            if hook.first_block == n_layers:  # the residual stream after the last block
                residual = edit(residual)
        norm = self._model.cfg.normalization_type
        return cast(torch.Tensor, residual if norm is None else self._model.ln_final(residual))

    @contextmanager
    def _attached(self, edits: Sequence[tuple[Hook, Edit]]) -> Iterator[None]:
        fwd_hooks, handles = [], []
        for hook, edit in edits:
            if hook.place == "mlp_module_in":
                handles.append(blocks.on_input(self._model.blocks[hook.layer].mlp, edit))
                continue
            name = hook.name if hook.boundary is None else f"blocks.{hook.boundary}.hook_resid_pre"
            fwd_hooks.append((name, _concatenating_heads(edit) if hook.place == "z" else _hook_function(edit)))
        with blocks.attached(handles), self._model.hooks(fwd_hooks=fwd_hooks):
            yield


def _hook_function(edit: Edit) -> Callable[..., torch.Tensor]:
    return lambda activation, hook: edit(activation)  # noqa: ARG005 -- TransformerLens passes hook by name


def _concatenating_heads(edit: Edit) -> Callable[..., torch.Tensor]:
    """*edit* for TransformerLens's hook_z (batch, seq, head, d_head); edits get (batch, seq, head * d_head)."""
    return lambda activation, hook: edit(activation.flatten(-2)).reshape(activation.shape)  # noqa: ARG005 -- as above


def _hooked(model: Any, processing: Sequence[str]) -> Any:  # Any: TransformerLens is not typed
    """Convert *model*, loaded by transformers, into a HookedTransformer."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # it is deprecated; and the user's `-W error` is for the user's code
        from transformer_lens import loading_from_pretrained as loading

        name = _NAME_OF_FAMILY.get(type(model).__name__, _NO_NAME)
        # WHY patched: TransformerLens would fetch a configuration from the Hub by name, not use the model's own
        own = copy.deepcopy(model.config)
        own.architectures = [type(model).__name__]
        own.n_ctx = own.max_position_embeddings  # a name that GPT-2's older configurations have
        own_config = mock.Mock(from_pretrained=lambda *_, **__: own)
        with mock.patch.multiple(loading, AutoConfig=own_config, get_official_model_name=lambda name: name):
            config = loading.get_pretrained_model_config(name, device=str(model.device), dtype=model.dtype)
            if name != _NO_NAME:
                config = _resized(config, model.config)
            weights = loading.get_pretrained_state_dict(name, config, model, dtype=model.dtype)
        return build(config, weights, processing).to(model.device)


def build(config: Any, weights: Mapping[str, torch.Tensor], processing: Sequence[str]) -> Any:  # Any: as above
    """
    Build a HookedTransformer.

    Args:
        config: TransformerLens's configuration.
        weights: by TransformerLens's names.
        processing: the weight processing to apply.

    Raises:
        ValueError: *weights* lacks matrices, for which TransformerLens would use uninitialised memory.
    """
    from transformer_lens import HookedTransformer

    config.tokenizer_name = None  # WHY: with a name, TransformerLens would fetch that tokenizer from the Hub
    hooked = HookedTransformer(config)
    matrices = {name for name, _ in hooked.named_parameters() if name.rpartition(".")[2].lstrip("_").startswith("W_")}
    if missing := sorted(matrices - {*weights}):
        raise ValueError(f"its weights lack {len(missing)} matrices, {missing[0]} among them")
    kinds = ("center_writing_weights", "fold_ln", "fold_value_biases", "refactor_factored_attn_matrices")
    hooked.load_and_process_state_dict(
        {key: value.clone() for key, value in weights.items()},  # clone: processing works in place
        center_unembed=False,
        **{kind: kind in processing for kind in kinds},
    )
    return hooked


def _resized(config: Any, own: Any) -> Any:
    """*config*, a family's TransformerLens configuration, with the sizes of *own*, the model's in transformers."""
    sizes = {ours: getattr(own, theirs) for ours, theirs in _SIZES.items()}
    kinds = ["local" if kind == "sliding_attention" else "global" for kind in own.layer_types]
    scale = float(own.query_pre_attn_scalar) ** 0.5
    return replace(config, **sizes, attn_types=kinds, d_vocab_out=own.vocab_size, attn_scale=scale, rotary_dim=None)


@torch.inference_mode()
def _check_same_predictions(hooked: Any, model: Any, source: str) -> None:
    n_vocabulary = model.config.get_text_config().vocab_size
    tokens = probe_tokens(hooked.cfg.n_ctx, n_vocabulary, model.device)
    expected, got = (
        torch.log_softmax(logits.float(), -1)[..., :n_vocabulary]
        for logits in (model(input_ids=tokens, use_cache=False).logits, hooked(tokens))
    )
    difference = float((expected - got).abs().max())
    if not difference <= 1e-2:
        raise errors.model_not_understood(
            source, f"TransformerLens's log-probabilities differ from transformers' by {difference:g}"
        )
