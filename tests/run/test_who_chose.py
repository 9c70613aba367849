"""Who chose what is judged in, on and by: each of the choices of a publisher, and of whoever judges."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from sae_checks.plan import flags, options
from sae_checks.plan.model_source import ModelSource, ModelWithSaes
from sae_checks.release.hub import HubRepo
from sae_checks.run import who_chose
from sae_checks.run.settle import settle


def settled(**asked):
    return settle(options.parse({**flags.defaults(), "sae_release": "demo", **asked}))


def said(request):
    return dict(part.split(": ", 1) for part in who_chose.sentence(request).split("; "))


def test_what_the_release_brings_and_what_is_asked_for(tmp_path):
    """The demo brings all but limits; an option is named as the one who chose."""
    own = "the release's own"
    brought = {"model": own, "text": own, "Lambada": own, "Children's Book Test": own}
    request = settled()
    assert said(request) == {**brought, "context": "the model's", "limits": "shipped"}
    lim = tmp_path / "lim.toml"
    lim.write_text(
        'schema = 1\n[default.ce_loss]\nmeasure = "ce_increase"\nmax = 1\nunit = "nats/token"\nsource = "x"\n'
    )
    texts = {f"sae_{name}": str(getattr(request.plan, name).path) for name in ("corpus", "lambada")}
    model = str(request.plan.models[0].source.folder)
    asked = settled(sae_model=model, sae_context="100", sae_thresholds=str(lim), sae_cbt="none", **texts)
    assert said(asked) == {
        "model": "--sae-model",
        "text": "--sae-corpus",
        "Lambada": "--sae-lambada",
        "context": "--sae-context",
        "limits": "--sae-thresholds, else shipped",
    }


@pytest.mark.parametrize(
    ("name", "who"), [("gpt2-small", "named by the release"), ("", "named by SAE Lens's registry")]
)
def test_a_model_that_nobody_asked_for(name, who):
    """It is the release's choice where its configurations name it."""
    plan = settled().plan
    saes = tuple(replace(sae, model_name=name) for sae in plan.release.saes)
    repo = HubRepo(repo_id="gpt2", kind="model", commit="c", files=(), offline=False)
    models = (ModelWithSaes(source=ModelSource(folder=None, repo=repo), sae_ids=plan.release.sae_ids),)
    plan = replace(plan, release=replace(plan.release, saes=saes, model="gpt2-small"), models=models)
    assert said(SimpleNamespace(plan=plan, own_limits=None))["model"] == who


@pytest.mark.parametrize(
    ("n_tokens", "n_asked", "who"),
    [
        (1024, None, "default"),
        (128, None, "twice the training context that the release states"),
        (128, 64, "twice --sae-train-context"),
    ],
)
def test_a_context_that_nobody_asked_for(n_tokens, n_asked, who):
    """The training context is what the release states, unless it states none."""
    plan = settled().plan
    chosen = replace(plan.options, n_train_context_tokens=n_asked)
    plan = replace(plan, n_context_tokens=n_tokens, n_model_context_tokens=4096, options=chosen)
    assert said(SimpleNamespace(plan=plan, own_limits=None))["context"] == who
