"""Models in TransformerLens's own file format: a config.json, a pickled state dict, and a separate tokenizer."""

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
from sae_checks.model import transformers_files
from sae_checks.model.interface import probe_tokens
from sae_checks.model.transformer_lens import HookedModel, build
from sae_checks.plan.model_source import TransformerLensFiles
from sae_checks.provenance import FileHash
from sae_checks.release.release import sha256_of

_FIRST_HOOK = "blocks.0.hook_resid_pre"


def load(
    files: TransformerLensFiles, *, source: str, dtype: str, device: torch.device, processing: Sequence[str] = ()
) -> HookedModel:
    """
    Load the model in *files* by TransformerLens, without network.

    Args:
        files: the model's files.
        source: the model's name in the record.
        dtype: of the weights.
        device: where the weights go.
        processing: TransformerLens's weight processing to apply, "fold_ln" and so on.

    Raises:
        MeasuringError: the model cannot be loaded, lacks weights, has fewer tokens than its tokenizer, or gives other
            predictions when it is resumed.
    """
    try:
        model = _hooked(files, transformers_files.DTYPES[dtype], device, processing)
        tokenizer = transformers_files.read_tokenizer(files.tokenizer, as_written=True)
    except errors.MeasuringError:
        raise
    except Exception as problem:
        raise errors.model_not_loaded(source, f"TransformerLens: {type(problem).__name__}: {problem}") from problem
    if len(tokenizer) > model.cfg.d_vocab:
        mismatch = f"its tokenizer has {len(tokenizer)} tokens, its embedding {model.cfg.d_vocab}"
        raise errors.model_not_loaded(source, mismatch)
    loaded = HookedModel(
        model,
        tokenizer,
        source=source,
        architecture="HookedTransformer",
        processing=tuple(processing),
        weights=(FileHash(name=files.weights.name, sha256=sha256_of(files.weights)),),
    )
    _check_resumes(loaded, model, source)
    return loaded


def _hooked(files: TransformerLensFiles, dtype: torch.dtype, device: torch.device, processing: Sequence[str]) -> Any:
    """Read a HookedTransformer from *files*. Any: TransformerLens is not typed."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # it is deprecated; and the user's `-W error` is for the user's code
        from transformer_lens import loading_from_pretrained as loading

        hub = SimpleNamespace(list_repo_files=lambda _: [files.weights.name])
        utils = SimpleNamespace(download_file_from_hf=_reader(files), select_compatible_kwargs=lambda *_: {})
        no_path = SimpleNamespace(exists=lambda: False)
        with (
            mock.patch.object(loading, "HfApi", return_value=hub),
            mock.patch.object(loading, "utils", utils),
            mock.patch.object(loading, "Path", return_value=no_path),  # TRAP: a local folder of that name would win
        ):
            config = loading.get_pretrained_model_config(files.name, device=str(device), dtype=dtype)
            weights = loading.get_pretrained_state_dict(files.name, config, dtype=dtype)
        return build(config, weights, processing).to(device)


def _reader(files: TransformerLensFiles) -> Callable[[str, str], Any]:
    """A safe replacement for TransformerLens's download, which unpickles code. Any: JSON, or tensors by name."""

    def read(_: str, file: str) -> Any:
        if file == "config.json":
            return json.loads(files.config.read_text(encoding="utf-8"))
        return torch.load(files.weights, map_location="cpu", weights_only=True)

    return read


@torch.inference_mode()
def _check_resumes(model: HookedModel, hooked: Any, source: str) -> None:
    """Check that *model*, resumed before its first block, predicts the same as *hooked*, its HookedTransformer."""
    tokens = probe_tokens(hooked.cfg.n_ctx, hooked.cfg.d_vocab, model.device)
    resumed = model.resume(model.clean(tokens, [_FIRST_HOOK]), {_FIRST_HOOK: lambda x: x})
    expected, got = (torch.log_softmax(x.float(), -1) for x in (hooked(tokens)[0], model.logits(resumed[0])))
    difference = float((expected - got).abs().max())
    if not difference <= 1e-2:
        problem = f"resumed before its first block its log-probabilities differ by {difference:g}"
        raise errors.model_not_understood(source, problem)
