"""Whether the models of a plan are those that the configurations of its SAEs name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sae_checks import errors
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.plan import Plan
from sae_checks.release import registry
from sae_checks.release.release import Sae


def warnings(plan: Plan) -> Iterator[str]:
    """A line for each model that SAEs name and that is not known to be the one in which they are measured."""
    if isinstance(plan.release.model, Path) and plan.options.model is None:
        return  # it came with the SAEs
    for model in plan.models:
        saes = [sae for sae in plan.release.saes if isinstance(sae, Sae) and sae.sae_id in model.sae_ids]
        known = set(_names(model.source))
        named = [sae.model_name for sae in saes if sae.model_name and not known & set(_forms(sae.model_name))]
        for name in dict.fromkeys(named):
            given = errors.shown(model.source.name)
            yield f"{named.count(name)} SAE(s) name the model {name}; nothing says that {given} is that one"


def _names(source: ModelSource) -> Iterator[str]:
    """The names by which the model is known: of its folder, repository and configuration."""
    if source.repo is not None:
        yield from _forms(source.repo.repo_id)
    if source.folder is not None:
        yield from _forms(source.folder.resolve().name)
    if source.in_memory is None and isinstance(name := source.read_config().get("_name_or_path"), str):
        yield from _forms(name)


def _forms(name: str) -> Iterator[str]:
    """*name* without its owner or folder, also as the Hub calls it."""
    yield _last(name)
    if (hub_name := registry.hub_model_name(name)) is not None:
        yield _last(hub_name)


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
