"""Models that only TransformerLens has: its own config.json, a state dict in a pickle, a tokenizer from elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from sae_checks import errors
from sae_checks.model import hugging_face
from sae_checks.model.transformer_lens import HookedModel, built
from sae_checks.plan.model_source import TransformerLensFiles
from sae_checks.provenance import FileHash
from sae_checks.release.release import sha256_of

_ALL_BLOCKS = "blocks.0.hook_resid_pre"


def load(
    files: TransformerLensFiles, *, source: str, dtype: str, device: torch.device, processing: Sequence[str] = ()
) -> HookedModel:
    """
    The model in *files* as TransformerLens makes it, its weights processed as *processing* names it; no network.

    Raises:
        MeasuringError: it cannot be loaded, lacks weights, has another vocabulary than its tokenizer, or does not
            compute from the middle what it computes as a whole.
    """
    try:
        model = _hooked(files, hugging_face.DTYPES[dtype], device, processing)
        tokenizer = hugging_face.read_tokenizer(files.tokenizer, as_written=True)
    except errors.MeasuringError:
        raise
    except Exception as problem:
        raise errors.model_not_loaded(source, f"TransformerLens: {type(problem).__name__}: {problem}") from problem
    if len(tokenizer) > model.cfg.d_vocab:
        problem_here = f"its tokenizer has {len(tokenizer)} tokens, its embedding {model.cfg.d_vocab}"
        raise errors.model_not_loaded(source, problem_here)
    found = HookedModel(
        model,
        tokenizer,
        source=source,
        architecture="HookedTransformer",
        processing=tuple(processing),
        weights=(FileHash(name=files.weights.name, sha256=sha256_of(files.weights)),),
    )
    _check_resumes(found, model, source)
    return found


def _hooked(files: TransformerLensFiles, dtype: torch.dtype, device: torch.device, processing: Sequence[str]) -> Any:
    """Any: TransformerLens is not typed."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # HookedTransformer's deprecation, and the caller's `-W error` is the caller's
        from transformer_lens import loading_from_pretrained as loading

        hub = SimpleNamespace(list_repo_files=lambda _: [files.weights.name])
        reading = SimpleNamespace(download_file_from_hf=_reader(files), select_compatible_kwargs=lambda *_: {})
        nowhere = SimpleNamespace(exists=lambda: False)
        with (
            mock.patch.object(loading, "HfApi", return_value=hub),
            mock.patch.object(loading, "utils", reading),
            mock.patch.object(loading, "Path", return_value=nowhere),  # TRAP: it prefers a folder called like the model
        ):
            config = loading.get_pretrained_model_config(files.name, device=str(device), dtype=dtype)
            weights = loading.get_pretrained_state_dict(files.name, config, dtype=dtype)
        return built(config, weights, processing).to(device)


def _reader(files: TransformerLensFiles) -> Callable[[str, str], Any]:
    """In place of TransformerLens's download, which reads a pickle by running it. Any: JSON, or tensors by name."""

    def read(_: str, file: str) -> Any:
        if file == "config.json":
            return json.loads(files.config.read_text(encoding="utf-8"))
        return torch.load(files.weights, map_location="cpu", weights_only=True)

    return read


@torch.inference_mode()
def _check_resumes(found: HookedModel, hooked: Any, source: str) -> None:
    """What is resumed in the middle must predict what HookedTransformer predicts as a whole."""
    tokens = (torch.arange(min(8, hooked.cfg.n_ctx), device=found.device) * 7 % hooked.cfg.d_vocab)[None]
    resumed = found.resume(found.clean(tokens, [_ALL_BLOCKS]), {_ALL_BLOCKS: lambda x: x})
    expected, got = (torch.log_softmax(x.float(), -1) for x in (hooked(tokens)[0], found.logits(resumed[0])))
    difference = float((expected - got).abs().max())
    if not difference <= 1e-2:
        problem = f"resumed before its first block its log-probabilities differ by {difference:g}"
        raise errors.model_not_understood(source, problem)
