"""Turns SAEs, models and texts that the caller of the Python API has in memory into a release, a model and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_checks.corpora.rows import RowError, parse_document, parse_passage, parse_query
from sae_checks.plan.model_source import ModelInMemory, ModelSource
from sae_checks.release import configuration, hooks
from sae_checks.release.release import Release

_PARSE: Mapping[str, Callable[[object], object]] = {
    "corpus": parse_document,
    "lambada": parse_passage,
    "cbt": parse_query,
}


def release_of(saes: Mapping[str, Any]) -> Release:
    """
    Describe the release that *saes* make up.

    Args:
        saes: modules of SAE Lens by SAE id. Any: SAE Lens ships no types.

    Raises:
        TypeError: a value is no SAE of SAE Lens.
        ValueError: there is none.
        SaeError: a configuration cannot be used.
    """
    if not saes:
        raise ValueError("release= holds no SAE")
    described = []
    for sae_id, module in saes.items():
        if not hasattr(module, "cfg") or not hasattr(module, "encode") or not hasattr(module.cfg, "to_dict"):
            raise TypeError(f"{sae_id!r} is {type(module).__name__}, not an SAE of SAE Lens")
        cfg = module.cfg.to_dict()
        metadata = dict(cfg.get("metadata") or {})
        if not metadata.get("hook_name") and hooks.parse(sae_id) is not None:
            metadata["hook_name"] = sae_id
        cfg["metadata"] = metadata
        described.append(replace(configuration.describe(sae_id, cfg, None), format="in_memory", module=module))
    in_order = sorted(described, key=lambda sae: (sae.depth, sae.sae_id))
    return Release(
        name="in memory", source="in memory", revision=None, saes=tuple(in_order), model=None, corpus=None, lambada=None
    )


def model_source_of(model: Any, tokenizer: Any) -> ModelSource:
    """
    Describe a transformers model in memory, with its tokenizer.

    Raises:
        TypeError: *model* is no model of transformers, or the tokenizer is missing.
    """
    if not hasattr(model, "get_output_embeddings") or not hasattr(model, "config"):
        raise TypeError(f"model= is {type(model).__name__}, not a transformers model, a folder or a name on the Hub")
    if tokenizer is None:
        raise TypeError("tokenizer= is missing: a model in memory needs the tokenizer that it was trained with")
    config = model.config.get_text_config()
    n_context = getattr(config, "max_position_embeddings", None)
    given = ModelInMemory(model=model, tokenizer=tokenizer, n_context_tokens=n_context)
    return ModelSource(folder=None, repo=None, in_memory=given)


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Restore the mode, gradient flags and submodules of *model*, a torch module or None, when the block ends."""
    if model is None:
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    children = [(module, dict(module.named_children())) for module in model.modules()]
    try:
        yield
    finally:
        for module, named in children:
            for name, child in named.items():
                setattr(module, name, child)
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


def write_texts(folder: Path, kind: str, given: Any) -> str:
    """
    Write *given*, an iterable of texts or rows, as the .jsonl file of one corpus; return its path.

    Raises:
        TypeError: it is no such iterable, or an entry is neither a text nor a mapping of JSON values.
        ValueError: it is empty, or an entry has another form.
    """
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{kind}= is {type(given).__name__}, not a path, a name on the Hub, texts or rows")
    lines = []
    for i, row in enumerate(given):
        if not isinstance(row, str | Mapping):
            raise TypeError(f"{kind}= holds {type(row).__name__}, not texts or rows")
        named = {"text": row} if isinstance(row, str) else dict(row)
        try:
            lines.append(json.dumps(named))
            _PARSE[kind](named)
        except TypeError as problem:
            raise TypeError(f"entry {i} of {kind}= has a value that is no JSON: {problem}") from None
        except RowError as problem:
            raise ValueError(f"entry {i} of {kind}= {problem}") from None
    if not lines:
        raise ValueError(f"{kind}= is empty")
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)
