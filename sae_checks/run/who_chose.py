"""Who chose what SAEs are judged in, on and by: whoever judges, or the publisher of the release."""

from __future__ import annotations

from pathlib import Path

from sae_checks.plan.plan import Plan
from sae_checks.release import registry
from sae_checks.release.release import Sae
from sae_checks.run.settle import Request


def sentence(request: Request) -> str:
    """`model: named by the release; text: --sae-corpus; ...`."""
    plan = request.plan
    chosen = {"model": _model(plan), "text": plan.corpus_reason}
    items = {
        "Lambada": _text("--sae-lambada", plan.options.lambada, plan.release.lambada),
        "Children's Book Test": _text("--sae-cbt", plan.options.cbt, plan.release.cbt),
    }
    given = zip(items.items(), (plan.lambada, plan.cbt), strict=True)
    chosen |= {name: who for (name, who), source in given if source is not None}
    chosen["context"] = _context(plan)
    chosen["limits"] = "shipped" if request.own_limits is None else "--sae-thresholds, else shipped"
    return "; ".join(f"{what}: {who}" for what, who in chosen.items())


def _model(plan: Plan) -> str:
    if plan.options.model is not None:
        return "--sae-model"
    if isinstance(plan.release.model, Path):
        return "the release's own"
    if any(model.source.in_memory is not None for model in plan.models):
        return "given in memory"
    return "named by the release" if _is_named_by_saes(plan) else "named by SAE Lens's registry"


def _is_named_by_saes(plan: Plan) -> bool:
    """Whether the configuration of each SAE names the model that it is measured in."""
    for sae in plan.release.saes:
        if not isinstance(sae, Sae):
            continue
        repo = plan.model_of(sae).repo
        if repo is not None and (not sae.model_name or registry.hub_model_name(sae.model_name) != repo.repo_id):
            return False
    return True


def _text(flag: str, asked: str | None, shipped: Path | None) -> str:
    if asked is not None:
        return flag
    return "default" if shipped is None else "the release's own"


def _context(plan: Plan) -> str:
    if plan.options.n_context_tokens is not None:
        return "--sae-context"
    if plan.n_context_tokens == plan.n_model_context_tokens:
        return "the model's"
    stated = [sae.n_training_context_tokens for sae in plan.release.saes if isinstance(sae, Sae)]
    if plan.n_context_tokens != 2 * max((n for n in stated if n is not None), default=0):
        return "default"
    named = plan.options.n_train_context_tokens is None
    return "twice the training context that the release states" if named else "twice --sae-train-context"
