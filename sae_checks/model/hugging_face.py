"""The model's own implementation in transformers, resumed from the middle by handing its early blocks' work on."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sae_checks import errors, hooks
from sae_checks.corpora.sequences import Tokenizer
from sae_checks.model.interface import CleanPass
from sae_checks.provenance import FileHash, ModelFacts
from sae_checks.release import sha256_of

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(asked: str) -> torch.device:
    """*asked*, or for "auto" the best there is: cuda, mps, cpu."""
    if asked != "auto":
        return torch.device(asked)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(folder: Path, *, source: str | None = None, dtype: str, device: torch.device) -> HuggingFaceModel:
    """
    The causal language model and tokenizer in *folder*; safetensors only, no remote code, no network.

    *source* is what it is called in the record, the folder by default.

    Raises:
        MeasuringError: transformers cannot load it, or its layers cannot be spliced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's `-W error` is for the caller's code
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # one bar is enough, and it is ours
        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=_DTYPES[dtype],
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as problem:
            raise errors.model_not_loaded(str(folder), f"{type(problem).__name__}: {problem}") from problem
    if absent := sorted(loading["missing_keys"]):  # transformers fills them with random numbers and a log line
        raise errors.model_not_loaded(str(folder), f"its weights lack {len(absent)} tensors, {absent[0]} among them")
    if not tokenizer.vocab_size:  # what transformers makes of a folder without tokenizer files
        raise errors.model_not_loaded(str(folder), "its tokenizer has no vocabulary (no tokenizer files?)")
    weights = tuple(FileHash(name=f.name, sha256=sha256_of(f)) for f in sorted(folder.glob("*.safetensors")))
    return HuggingFaceModel(model.to(device), tokenizer, source=source or str(folder), weights=weights)


class HuggingFaceModel:
    """A LanguageModel over a transformers model (see `interface.LanguageModel`)."""

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer, *, source: str, weights: tuple[FileHash, ...] = ()
    ) -> None:
        self._model = cast(Any, model.eval().requires_grad_(False))  # Any: transformers' attributes are not typed
        self._base = self._model.base_model
        self._head = self._model.get_output_embeddings()
        config = self._model.config.get_text_config()
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self._blocks = _blocks_of(self._base, config.num_hidden_layers, source)
        self.uses_layer_norm = any(isinstance(module, nn.LayerNorm) for module in self._blocks.modules())
        self.tokenizer = tokenizer
        self.device: torch.device = self._model.device
        self.facts = ModelFacts(
            source=source,
            architecture=type(model).__name__,
            backend="transformers",
            dtype=str(self._model.dtype).removeprefix("torch."),
            device=self.device.type,
            n_layers=len(self._blocks),
            d_model=config.hidden_size,
            n_context_tokens=config.max_position_embeddings,
            weights=weights,
        )
        self._check_head(config.vocab_size)

    def check_hook(self, sae_id: str, hook: str, d_in: int) -> None:
        parsed = hooks.parse(hook)
        boundary = parsed.boundary if parsed else None
        if boundary is None:
            raise errors.unknown_hook(sae_id, hook, hooks.KNOWN)
        n_layers = self.facts.n_layers
        if boundary > n_layers or (boundary == n_layers and not hook.endswith("post")):
            raise errors.hook_beyond_model(sae_id, hook, n_layers)
        if d_in != self.facts.d_model:
            raise errors.wrong_width(sae_id, d_in, self.facts.d_model)

    @torch.inference_mode()
    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        captured: dict[int, list[torch.Tensor]] = {_boundary(hook): [] for hook in hooks}
        with self._capturing(captured):
            hidden = self._run(tokens)
        for hook in hooks:
            if (n_firings := len(captured[_boundary(hook)])) != 1:
                raise errors.hook_fired(hook, n_firings, 1)
        return CleanPass(hidden=hidden, activations={hook: captured[_boundary(hook)][0] for hook in hooks})

    @torch.inference_mode()
    def resume(self, tokens: torch.Tensor, hook: str, activation: torch.Tensor) -> torch.Tensor:
        counter = _Firings()
        with self._injecting(_boundary(hook), activation, counter):
            hidden = self._run(tokens)
        if counter.n != 1:
            raise errors.hook_fired(hook, counter.n, 1)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self._head(hidden).float()
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return cast(torch.Tensor, logits)

    def _run(self, tokens: torch.Tensor) -> torch.Tensor:
        # No attention mask: padding stands on the right, where a causal model's real positions cannot see it.
        return cast(
            torch.Tensor, self._base(input_ids=tokens, use_cache=False).last_hidden_state
        )  # (batch, seq, d_model)

    @contextmanager
    def _capturing(self, captured: dict[int, list[torch.Tensor]]) -> Iterator[None]:
        handles = []
        for boundary, tensors in captured.items():
            if boundary < len(self._blocks):

                def before(_: nn.Module, args: Any, kwargs: Any, into: list[torch.Tensor] = tensors) -> None:
                    into.append(args[0] if args else kwargs["hidden_states"])

                handles.append(self._blocks[boundary].register_forward_pre_hook(before, with_kwargs=True))
            else:

                def after(_: nn.Module, __: Any, output: Any, into: list[torch.Tensor] = tensors) -> None:
                    into.append(output[0] if isinstance(output, tuple) else output)

                handles.append(self._blocks[-1].register_forward_hook(after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _injecting(self, boundary: int, activation: torch.Tensor, counter: _Firings) -> Iterator[None]:
        """The blocks before *boundary* do nothing, and what reaches the block behind them is *activation*."""
        originals = list(self._blocks[: max(boundary, 1)])
        try:
            for i in range(boundary - 1):
                self._blocks[i] = _HandOn(originals[i])
            if boundary > 0:
                self._blocks[boundary - 1] = _Inject(originals[-1], activation, counter, before=False)
            else:
                self._blocks[0] = _Inject(originals[0], activation, counter, before=True)
            yield
        finally:
            for i, block in enumerate(originals):
                self._blocks[i] = block

    def _check_head(self, n_vocabulary: int) -> None:
        """Losses are computed from hidden states in chunks; that must give the model's own logits."""
        n_tokens = min(8, self.facts.n_context_tokens)
        tokens = (torch.arange(n_tokens, device=self.device) * 7 % n_vocabulary)[None]  # (1, n_tokens)
        with torch.inference_mode():
            expected = self._model(input_ids=tokens, use_cache=False).logits.float()[0]
            got = self.logits(self._run(tokens)[0])
        scale = float(expected.abs().max())
        difference = float((expected - got).abs().max())
        if not difference <= 1e-3 * max(scale, 1.0):
            raise errors.model_not_understood(
                self.facts.source, f"its logits differ by {difference:g} from head(hidden)"
            )


class _Firings:
    """How often an injection happened."""

    def __init__(self) -> None:
        self.n = 0


class _HandOn(nn.Module):
    """Stands in for a block and returns its input; other attributes are the block's own."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not registered: the block is no child, it is only asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args else kwargs["hidden_states"]


class _Inject(_HandOn):
    """Stands in for a block: returns *activation* in its output's place, or gives it to the block as input."""

    def __init__(self, block: nn.Module, activation: torch.Tensor, counter: _Firings, *, before: bool) -> None:
        super().__init__(block)
        self.__dict__.update(activation=activation, counter=counter, before=before)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.counter.n += 1
        if not self.before:
            return self.activation
        if args:
            return self.block(self.activation, *args[1:], **kwargs)
        return self.block(**{**kwargs, "hidden_states": self.activation})


def _blocks_of(base: nn.Module, n_layers: int, source: str) -> nn.ModuleList:
    lists = [m for m in base.children() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if len(lists) != 1:
        raise errors.model_not_understood(source, f"{len(lists)} lists of {n_layers} blocks in {type(base).__name__}")
    return lists[0]


def _boundary(hook: str) -> int:
    parsed = hooks.parse(hook)
    assert parsed is not None, hook
    assert parsed.boundary is not None, hook  # check_hook has been asked first
    return parsed.boundary
