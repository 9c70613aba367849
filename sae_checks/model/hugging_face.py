"""The model's own implementation in transformers, resumed from the middle by handing its early blocks' work on."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sae_checks import errors
from sae_checks.corpora.sequences import Tokenizer
from sae_checks.model import blocks
from sae_checks.model.interface import Captures, CleanPass, Edit
from sae_checks.provenance import FileHash, ModelFacts
from sae_checks.release import hooks
from sae_checks.release.release import sha256_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(asked: str) -> torch.device:
    """*asked*, or for "auto" the best there is: cuda, mps, cpu."""
    if asked != "auto":
        return torch.device(asked)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """What transformers made of a folder."""

    model: nn.Module
    tokenizer: Tokenizer
    weights: tuple[FileHash, ...]


def load(folder: Path, *, source: str | None = None, dtype: str, device: torch.device) -> HuggingFaceModel:
    """
    The causal language model and tokenizer in *folder*; safetensors only, no remote code, no network.

    *source* is what it is called in the record, the folder by default.

    Raises:
        MeasuringError: transformers cannot load it, or its layers cannot be spliced.
    """
    read_ = read(folder, dtype=dtype, device=device)
    return HuggingFaceModel(read_.model, read_.tokenizer, source=source or str(folder), weights=read_.weights)


def read(folder: Path, *, dtype: str, device: torch.device) -> Read:
    """
    Model and tokenizer as transformers reads them, with everything that it would pass over in silence refused.

    Raises:
        MeasuringError: transformers cannot load it, weights are missing, or there is no tokenizer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's `-W error` is for the caller's code
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # one bar is enough, and it is ours
        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=DTYPES[dtype],
                output_loading_info=True,
            )
        except Exception as problem:
            raise errors.model_not_loaded(str(folder), f"{type(problem).__name__}: {problem}") from problem
    if absent := sorted(loading["missing_keys"]):  # transformers fills them with random numbers and a log line
        raise errors.model_not_loaded(str(folder), f"its weights lack {len(absent)} tensors, {absent[0]} among them")
    tokenizer = read_tokenizer(folder)
    weights = tuple(FileHash(name=f.name, sha256=sha256_of(f)) for f in sorted(folder.glob("*.safetensors")))
    return Read(model=model.to(device), tokenizer=tokenizer, weights=weights)


def read_tokenizer(folder: Path, *, as_written: bool = False) -> Tokenizer:
    """
    The tokenizer in *folder*; no remote code, no network.

    *as_written*: a tokenizer.json counts as it stands. TRAP: transformers 5 takes no more of it than the vocabulary
    where the configuration names a class like GPT-NeoX's, and puts that class's own rules in place of the others.

    Raises:
        MeasuringError: transformers cannot load it, or there is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's `-W error` is for the caller's code
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        reader: Any = PreTrainedTokenizerFast if as_written and (folder / "tokenizer.json").is_file() else AutoTokenizer
        try:
            tokenizer = reader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as problem:
            raise errors.model_not_loaded(str(folder), f"{type(problem).__name__}: {problem}") from problem
    if not tokenizer.vocab_size:  # what transformers makes of a folder without tokenizer files
        raise errors.model_not_loaded(str(folder), "its tokenizer has no vocabulary (no tokenizer files?)")
    return cast(Tokenizer, tokenizer)


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
        _fuse_gelu(self._blocks)
        self.uses_layer_norm = any(isinstance(module, nn.LayerNorm) for module in self._blocks.modules())
        self.n_heads: int = config.num_attention_heads
        self._n_vocabulary: int = config.vocab_size
        self._head_is_product = type(self._head) is nn.Linear and self._head.bias is None
        self.n_logits: int = len(self._head.weight)
        self.tokenizer = tokenizer
        self.device: torch.device = self._model.device
        self.facts = ModelFacts(
            source=source,
            architecture=type(model).__name__,
            backend="transformers",
            processing=(),
            dtype=str(self._model.dtype).removeprefix("torch."),
            device=self.device.type,
            n_layers=len(self._blocks),
            d_model=config.hidden_size,
            n_context_tokens=config.max_position_embeddings,
            weights=weights,
        )
        self._check_head()

    def width(self, sae_id: str, hook: str) -> int:
        parsed = hooks.parse(hook)
        if parsed is None:
            raise errors.unknown_hook(sae_id, hook, hooks.KNOWN)
        if parsed.layer >= self.facts.n_layers:
            raise errors.hook_beyond_model(sae_id, hook, self.facts.n_layers)
        if parsed.boundary is not None:
            return self.facts.d_model
        try:
            parts = self._parts[parsed.layer]
        except blocks.NotUnderstoodError as problem:
            raise errors.hook_not_here(sae_id, hook, self.facts.architecture, str(problem)) from None
        if parts.is_parallel and parsed.place == "resid_mid":
            problem_here = "attention and MLP run side by side, there is nothing between them"
            raise errors.hook_not_here(sae_id, hook, self.facts.architecture, problem_here)
        return blocks.width(parts, parsed, self.facts.d_model)

    @torch.inference_mode()
    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        captures = Captures(hooks)

        def handles() -> Iterator[RemovableHandle]:
            for boundary in {start(hook) for hook in hooks}:
                yield self._at_boundary(boundary, captures.at_boundary(boundary))
            for hook in sorted(hooks):  # a set's order is another in every process, and bits may depend on it
                yield from self._attach(hook, captures.at_hook(hook))

        with blocks.attached(handles()):
            return captures.clean_pass(tokens, self._run(tokens))

    @torch.inference_mode()
    def resume(self, clean: CleanPass, edits: Mapping[str, Edit]) -> torch.Tensor:
        taps = {hook: blocks.Tap(edit) for hook, edit in edits.items()}
        with self._handing_on(min(map(start, edits)), clean):
            # in the order of the computation: of two hooks at one point the second sees what the first made
            in_order = sorted(taps, key=lambda hook: _parsed(hook).depth)
            with blocks.attached(handle for hook in in_order for handle in self._attach(hook, taps[hook])):
                hidden = self._run(clean.tokens)
        for hook, tap in taps.items():
            if tap.n != 1:
                raise errors.hook_fired(hook, tap.n, 1)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            out = hidden.new_empty(*hidden.shape[:-1], self.n_logits, dtype=torch.float32)
        if self._head_is_product and hidden.dtype == torch.float32:
            torch.matmul(hidden, self._head.weight.T, out=out)
        else:
            out.copy_(self._head(hidden))
        if self._softcap is not None:
            out.div_(self._softcap).tanh_().mul_(self._softcap)
        return out

    def _run(self, tokens: torch.Tensor) -> torch.Tensor:
        # No attention mask: padding stands on the right, where a causal model's real positions cannot see it.
        return cast(
            torch.Tensor, self._base(input_ids=tokens, use_cache=False).last_hidden_state
        )  # (batch, seq, d_model)

    @cached_property
    def _parts(self) -> tuple[blocks.Parts, ...]:
        """The modules of each block, read and checked when the first hook within a block is asked for."""
        with torch.inference_mode():
            return blocks.understand(list(self._blocks), lambda: self._run(self._probe()))

    def _attach(self, hook: str, tap: Edit) -> Iterator[RemovableHandle]:
        parsed = _parsed(hook)
        if parsed.boundary is None:
            yield from blocks.attach(self._parts[parsed.layer], parsed, tap)
        else:
            yield self._at_boundary(parsed.boundary, tap)

    def _at_boundary(self, boundary: int, tap: Edit) -> RemovableHandle:
        if boundary == 0:
            return blocks.on_input(self._blocks[0], tap)
        return blocks.on_output(self._blocks[boundary - 1], tap)

    @contextmanager
    def _handing_on(self, n_blocks: int, clean: CleanPass) -> Iterator[None]:
        """The first *n_blocks* do nothing, and what comes out of them is what came out of them in *clean*."""
        originals = list(self._blocks[:n_blocks])
        try:
            for i, block in enumerate(originals):
                self._blocks[i] = _HandOn(block, clean.boundaries[n_blocks] if i == n_blocks - 1 else None)
            yield
        finally:
            for i, block in enumerate(originals):
                self._blocks[i] = block

    def _probe(self) -> torch.Tensor:
        """A few tokens to look at the model with, (1, n_tokens)."""
        n_tokens = min(8, self.facts.n_context_tokens)
        return (torch.arange(n_tokens, device=self.device) * 7 % self._n_vocabulary)[None]

    def _check_head(self) -> None:
        """Losses are computed from hidden states in chunks; that must give the model's own logits."""
        tokens = self._probe()
        with torch.inference_mode():
            expected = self._model(input_ids=tokens, use_cache=False).logits.float()[0]
            got = self.logits(self._run(tokens)[0])
        scale = float(expected.abs().max())
        difference = float((expected - got).abs().max())
        if not difference <= 1e-3 * max(scale, 1.0):
            raise errors.model_not_understood(
                self.facts.source, f"its logits differ by {difference:g} from head(hidden)"
            )


class _HandOn(nn.Module):
    """Stands in for a block and returns its input, or *given*; other attributes are the block's own."""

    def __init__(self, block: nn.Module, given: torch.Tensor | None) -> None:
        super().__init__()
        self.__dict__.update(block=block, given=given)  # not registered: the block is no child, it is only asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.given is not None:
            return self.given
        return args[0] if args else kwargs["hidden_states"]


def _blocks_of(base: nn.Module, n_layers: int, source: str) -> nn.ModuleList:
    decoder = getattr(base, "language_model", base)  # models that also read images keep their text model there
    lists = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if len(lists) != 1:
        raise errors.model_not_understood(source, f"{len(lists)} lists of {n_layers} blocks in {type(base).__name__}")
    return lists[0]


def _fuse_gelu(blocks: nn.Module) -> None:
    """The tanh form of GELU by one kernel: transformers has eight operations, each with memory of its own."""
    from transformers.activations import NewGELUActivation

    for module in list(blocks.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))


def _parsed(hook: str) -> hooks.Hook:
    parsed = hooks.parse(hook)
    assert parsed is not None, hook  # `width` has been asked first
    return parsed


def start(hook: str) -> int:
    """The first block that must run for a change at *hook* to reach the end."""
    parsed = _parsed(hook)
    return parsed.layer if parsed.boundary is None else parsed.boundary
