"""A record -> the command that repeats its run."""

from __future__ import annotations

from dataclasses import asdict

from sae_checks import errors
from sae_checks.plan import flags, options
from sae_checks.record.results import Record

_FIELDS = {
    "sae_id": "sae_ids",
    "sae_sequences": "n_sequences",
    "sae_context": "n_context_tokens",
    "sae_study_sequences": "n_study_sequences",
    "sae_train_context": "n_train_context_tokens",
    "sae_batch_tokens": "n_batch_tokens",
    "sae_memory": "memory_gib",
}
"""Fields of `Options` that are named otherwise than their option."""
_OUTPUTS = {"sae_record", "sae_report", "sae_out", "sae_history"}


def typed(run: Record) -> str:
    """The command of *run*: the options that are not the default; not where it wrote its files."""
    given = dict(run.options)
    profile = given.get("profile")
    known = {"sae_profile": str(profile)} if profile in flags.PROFILES else {}
    usual = asdict(options.parse({**flags.defaults(), **known}))
    parts = ["pytest"]
    for spec in flags.SPECS:
        field = _FIELDS.get(spec.key, spec.key.removeprefix("sae_"))
        value = given.get(field)
        if spec.key in _OUTPUTS or value in (None, "", False):
            continue
        if spec.is_switch:
            parts.append(spec.flag)
        elif spec.repeatable:
            parts += [errors.typed(spec.flag, pattern) for pattern in str(value).split(" ")]
        elif spec.key == "sae_special_tokens":
            both = f"{value},{given.get('bos', 'auto')}"
            parts += [errors.typed(spec.flag, both)] if both != spec.default else []
        elif value != (spec.default if field == "profile" else usual.get(field)):
            parts.append(errors.typed(spec.flag, str(value)))
    return " ".join(parts)
