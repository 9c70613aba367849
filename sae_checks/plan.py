"""What will be measured, settled before anything heavy is imported: options + release -> one plan. Ground."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sae_checks import errors
from sae_checks.options import Options
from sae_checks.release import Release, Sae

_N_DEFAULT_CONTEXT_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run, settled. The same on every process."""

    options: Options
    release: Release
    model: Path
    corpus: Path
    lambada: Path | None
    n_context_tokens: int
    """length that text sequences are cut to."""
    n_model_context_tokens: int | None
    """None: the model's config.json does not say."""


def make(options: Options, release: Release) -> Plan:
    """
    Settle where the model and the corpora come from and how long sequences are.

    The default context is the model's, but at most 1024 tokens or twice the longest training context, whichever is
    more: enough to see what happens beyond the training context, without paying for a context of 128,000.

    Raises:
        UsageError: an option is needed and missing, or the model folder or context cannot be used.
    """
    model = _needed(
        Path(options.model).expanduser() if options.model else None,
        release.model,
        errors.option_needed("--sae-model", release.name, "a language model in Hugging Face format"),
    )
    n_available = _context_of(model)
    if n_available is not None and options.n_context_tokens is not None and options.n_context_tokens > n_available:
        raise errors.context_too_long(options.n_context_tokens, n_available)
    longest = max((s.n_training_context_tokens or 0 for s in release.saes if isinstance(s, Sae)), default=0)
    wide = max(_N_DEFAULT_CONTEXT_TOKENS, 2 * longest)
    return Plan(
        options=options,
        release=release,
        model=model,
        corpus=_needed(
            options.corpus, release.corpus, errors.option_needed("--sae-corpus", release.name, "held-out text")
        ),
        lambada=options.lambada or release.lambada,
        n_context_tokens=options.n_context_tokens or min(wide, n_available or wide),
        n_model_context_tokens=n_available,
    )


def _needed(asked: Path | None, embedded: Path | None, missing: errors.UsageError) -> Path:
    found = asked or embedded
    if found is None:
        raise missing
    return found


def _context_of(model: Path) -> int | None:
    """The context length in the model folder's config.json; None where it does not say."""
    if not model.is_dir():
        raise errors.no_model(str(model), "there is no such folder")
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        config = {**config, **config.get("text_config", {})}
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise errors.no_model(str(model), f"its config.json cannot be read ({errors.shown(problem)})") from None
    if not any(model.glob("*.safetensors")):
        raise errors.no_model(str(model), "there is no .safetensors file in it")
    found = (config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx"))
    return next((n for n in found if isinstance(n, int) and n > 0), None)
