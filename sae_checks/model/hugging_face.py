"""The transformers backend: resumes a model from the middle by skipping its early blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sae_checks import errors
from sae_checks.corpora.sequences import Tokenizer
from sae_checks.model import blocks, transformers_files
from sae_checks.model.interface import Captures, CleanPass, Edit, count_calls, probe_tokens
from sae_checks.provenance import FileHash, ModelFacts
from sae_checks.release import hooks
from sae_checks.release.hooks import Hook, parse_known


def load(folder: Path, *, source: str | None = None, dtype: str, device: torch.device) -> HuggingFaceModel:
    """
    Load the model and tokenizer in *folder*; *source* is the model's name in the record, by default the folder.

    Raises:
        MeasuringError: transformers cannot load the model, or its blocks cannot be spliced.
    """
    files = transformers_files.read(folder, dtype=dtype, device=device)
    return HuggingFaceModel(files.model, files.tokenizer, source=source or str(folder), weights=files.weights)


class HuggingFaceModel:
    """An `interface.LanguageModel` that runs a transformers model."""

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
            modules = self._block_modules[parsed.layer]
        except blocks.UnknownBlockError as problem:
            raise errors.hook_not_here(sae_id, hook, self.facts.architecture, str(problem)) from None
        if modules.is_parallel and parsed.place == "resid_mid":
            reason = "attention and MLP run side by side, there is nothing between them"
            raise errors.hook_not_here(sae_id, hook, self.facts.architecture, reason)
        return blocks.width(modules, parsed, self.facts.d_model)

    @torch.inference_mode()
    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        captures = Captures(hooks)

        def handles() -> Iterator[RemovableHandle]:
            for boundary in {parse_known(hook).first_block for hook in hooks}:
                yield self._attach_at_boundary(boundary, captures.at_boundary(boundary))
            for hook in sorted(hooks):  # sorted: a set's order differs between processes, and may change the last bits
                yield from self._attach(parse_known(hook), captures.at_hook(hook))

        with blocks.attached(handles()):
            return captures.clean_pass(tokens, self._run(tokens))

    @torch.inference_mode()
    def resume(self, clean: CleanPass, edits: Mapping[str, Edit]) -> torch.Tensor:
        # sorted: of two hooks at one point, the second must see the edit of the first
        in_order = sorted(((parse_known(hook), edit) for hook, edit in edits.items()), key=lambda pair: pair[0].depth)
        with (
            self._skip_blocks(in_order[0][0].first_block, clean),
            count_calls(edits) as counted,
            blocks.attached(handle for hook, _ in in_order for handle in self._attach(hook, counted[hook.name])),
        ):
            return self._run(clean.tokens)

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
        # WHY no attention mask: padding is on the right, where a causal model's real positions cannot attend to it
        return cast(
            torch.Tensor, self._base(input_ids=tokens, use_cache=False).last_hidden_state
        )  # (batch, seq, d_model)

    @cached_property
    def _block_modules(self) -> tuple[blocks.BlockModules, ...]:
        """The modules of each block, found and checked when a hook inside a block is first used."""
        with torch.inference_mode():
            return blocks.find_modules(list(self._blocks), lambda: self._run(self._probe()))

    def _attach(self, hook: Hook, edit: Edit) -> Iterator[RemovableHandle]:
        if hook.boundary is None:
            yield from blocks.attach(self._block_modules[hook.layer], hook, edit)
        else:
            yield self._attach_at_boundary(hook.boundary, edit)

    def _attach_at_boundary(self, boundary: int, edit: Edit) -> RemovableHandle:
        if boundary == 0:
            return blocks.on_input(self._blocks[0], edit)
        return blocks.on_output(self._blocks[boundary - 1], edit)

    @contextmanager
    def _skip_blocks(self, n_blocks: int, clean: CleanPass) -> Iterator[None]:
        """Skip the first *n_blocks*, and continue with the residual stream that they gave in *clean*."""
        originals = list(self._blocks[:n_blocks])
        try:
            for i, block in enumerate(originals):
                self._blocks[i] = _SkippedBlock(block, clean.boundaries[n_blocks] if i == n_blocks - 1 else None)
            yield
        finally:
            for i, block in enumerate(originals):
                self._blocks[i] = block

    def _probe(self) -> torch.Tensor:
        return probe_tokens(self.facts.n_context_tokens, self._n_vocabulary, self.device)

    def _check_head(self) -> None:
        """Check that `logits` gives the model's own logits from its hidden states."""
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


class _SkippedBlock(nn.Module):
    """In place of a block: returns *output*, or its input if that is None. All other attributes are the block's."""

    def __init__(self, block: nn.Module, output: torch.Tensor | None) -> None:
        super().__init__()
        self.__dict__.update(block=block, output=output)  # WHY __dict__: the block must not become a child module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.output is not None:
            return self.output
        return args[0] if args else kwargs["hidden_states"]


def _blocks_of(base: nn.Module, n_layers: int, source: str) -> nn.ModuleList:
    decoder = getattr(base, "language_model", base)  # the text model of a model that also reads images
    lists = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    if len(lists) != 1:
        raise errors.model_not_understood(source, f"{len(lists)} lists of {n_layers} blocks in {type(base).__name__}")
    return lists[0]


def _fuse_gelu(blocks: nn.Module) -> None:
    """Replace GELU's tanh form by one kernel; transformers computes it in eight steps, each with new memory."""
    from transformers.activations import NewGELUActivation

    for module in list(blocks.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))
