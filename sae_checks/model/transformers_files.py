"""A language model and tokenizer in transformers' file format, read without network or remote code."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sae_checks import errors
from sae_checks.corpora.sequences import Tokenizer
from sae_checks.provenance import FileHash
from sae_checks.release.release import sha256_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelFiles:
    """A model and tokenizer that transformers read from a folder."""

    model: nn.Module
    tokenizer: Tokenizer
    weights: tuple[FileHash, ...]


def read(folder: Path, *, dtype: str, device: torch.device) -> ModelFiles:
    """
    Read a causal language model and its tokenizer, from safetensors alone.

    Raises:
        MeasuringError: transformers cannot load them, weights are missing, or there is no tokenizer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user's `-W error` is for the user's code
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # WHY: the plugin shows a bar of its own
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
    if missing := sorted(loading["missing_keys"]):  # TRAP: transformers fills them with random numbers and only logs it
        raise errors.model_not_loaded(str(folder), f"its weights lack {len(missing)} tensors, {missing[0]} among them")
    tokenizer = read_tokenizer(folder)
    weights = tuple(FileHash(name=f.name, sha256=sha256_of(f)) for f in sorted(folder.glob("*.safetensors")))
    return ModelFiles(model=model.to(device), tokenizer=tokenizer, weights=weights)


def hash_of_weights(model: nn.Module) -> str:
    """sha256 of names and numbers of the weights of a model that came from no file."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_tokenizer(folder: Path, *, as_written: bool = False) -> Tokenizer:
    """
    Read the tokenizer in *folder*.

    Args:
        folder: its files.
        as_written: use all of tokenizer.json. TRAP: if the configuration names a class such as GPT-NeoX's,
            transformers 5 reads only the vocabulary and takes all other rules from that class.

    Raises:
        MeasuringError: transformers cannot load it, or there is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user's `-W error` is for the user's code
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        reader: Any = PreTrainedTokenizerFast if as_written and (folder / "tokenizer.json").is_file() else AutoTokenizer
        try:
            tokenizer = reader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as problem:
            raise errors.model_not_loaded(str(folder), f"{type(problem).__name__}: {problem}") from problem
    if not tokenizer.vocab_size:  # TRAP: transformers returns an empty tokenizer for a folder without tokenizer files
        raise errors.model_not_loaded(str(folder), "its tokenizer has no vocabulary (no tokenizer files?)")
    return cast(Tokenizer, tokenizer)
