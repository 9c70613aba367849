"""The diagnosis of a red SAE: what it says, and that its numbers are those of a plain computation."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_checks.diagnosis import Corrected, Diagnosis, conclusion, not_diagnosed
from sae_checks.measuring import diagnosing
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.release import release
from sae_checks.run.judge import Judge
from sae_checks.run.settle import settle

DEMO = release.resolve("demo")
HOOKS = [sae.hook for sae in DEMO.saes]


def changed(folder, hook, change):
    """The demo's SAEs in *folder*, with *change* made to the weights of the SAE of *hook*."""
    for sae in DEMO.saes:
        shutil.copytree(sae.weights.parent, folder / "demo" / sae.sae_id)
    path = folder / "demo" / hook / "sae_weights.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    return folder / "demo"


def asked(folder, **more):
    return settle(
        Options(release=str(folder), model=str(DEMO.model), corpus=str(DEMO.corpus), device="cpu", **more),
    )


def diagnosed(folder, sae_id):
    return LocalExecutor(asked(folder).plan).diagnose(sae_id)


def plain(folder, hook, n=16):
    """x, weights and a function from reconstructions to CE increases, by transformers alone."""
    from transformers import AutoModelForCausalLM

    request = asked(folder)
    executor = LocalExecutor(request.plan)
    sequences = executor._corpus("text", executor._saes.get(hook)).sequences.first(n, 64)
    tokens = torch.from_numpy(sequences.tokens[:, :65])
    model = AutoModelForCausalLM.from_pretrained(DEMO.model)
    layer = int(hook.split(".")[1])

    def increase(change):
        def before(_, args, kwargs):
            x = args[0] if args else kwargs["hidden_states"]
            new = torch.cat([x[:, :1], change(x[:, 1:])], 1)  # the BOS is kept
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        handle = model.transformer.h[layer].register_forward_pre_hook(before, with_kwargs=True)
        with torch.no_grad():
            logits = model(tokens).logits.double()
        handle.remove()
        ce = -logits.log_softmax(-1)[:, 1:64].gather(-1, tokens[:, 2:65, None])[..., 0]
        return float(ce.mean())

    with torch.no_grad():
        x = model(tokens[:, :65], output_hidden_states=True).hidden_states[layer][:, 1:64].reshape(-1, 64).double()
    clean = increase(lambda x: x)
    weights = {name: w.double() for name, w in load_file(folder / hook / "sae_weights.safetensors").items()}
    return x, weights, lambda change: increase(change) - clean


def reconstructed(x, w):
    latents = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    return latents, latents @ w["W_dec"] + w["b_dec"]


def explained(x, made):
    return float(1 - (x - made).square().sum() / (x - x.mean(0)).square().sum())


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return changed(tmp_path_factory.mktemp("long"), HOOKS[2], lambda w: w.update(W_dec=w["W_dec"] * 1.6))


def test_the_numbers_are_those_of_a_plain_computation(long):
    hook = HOOKS[2]
    found = diagnosed(long, hook)
    x, w, increase = plain(long, hook)
    latents, made = reconstructed(x, w)
    error = x - made
    centred = x - x.mean(0), made - made.mean(0)
    ratio = float(centred[1].square().sum() / (centred[0] * centred[1]).sum())
    removal = 2 * (latents * (error @ w["W_dec"].T)).sum(0) + latents.square().sum(0) * w["W_dec"].square().sum(-1)
    assert found.n_sequences == 16
    assert found.n_tokens == len(x)
    assert found.explained_variance == pytest.approx(explained(x, made), abs=1e-4)
    assert found.length_ratio == pytest.approx(ratio, rel=1e-4)
    bias = float(error.mean(0).norm() / centred[0].square().sum(-1).mean().sqrt())
    assert found.relative_bias == pytest.approx(bias, rel=1e-4)
    assert found.norm_factor == pytest.approx(float(x.norm(dim=-1).mean()) / 8, rel=1e-4)
    assert found.worst_latents == tuple(removal.argsort()[:10].tolist())
    assert found.harmful_mass == pytest.approx(float(-removal.clamp_max(0).sum() / removal.abs().sum()), rel=1e-3)

    def with_length(x):
        return w["b_dec"] + (reconstructed(x, w)[1] - w["b_dec"]) / ratio

    def without_worst(x):
        latents, _ = reconstructed(x, w)
        latents[..., list(found.worst_latents)] = 0
        return latents @ w["W_dec"] + w["b_dec"]

    mean = made.mean(0)
    own = increase(lambda x: reconstructed(x.double(), w)[1].float())
    assert found.ce_increase_nats_per_token == pytest.approx(own, abs=1e-4)
    for change, corrected in (
        (with_length, found.with_length),
        (lambda x: reconstructed(x, w)[1] + error.mean(0), found.with_bias),
        (lambda y: x.mean(0) + (reconstructed(y, w)[1] - mean) / ratio, found.with_length_and_bias),
        (without_worst, found.without_worst_latents),
    ):
        assert corrected.explained_variance == pytest.approx(explained(x, change(x)), abs=1e-4)
        left = increase(lambda x, change=change: change(x.double()).float())
        assert corrected.ce_increase_nats_per_token == pytest.approx(left, abs=1e-4)
        assert corrected.recovered_loss == pytest.approx(1 - left / own, abs=0.01)


def test_a_long_decoder_is_too_long(long):
    assert "1.5 times too long: look at how it was loaded" in diagnosed(long, HOOKS[2]).sentence


@pytest.mark.parametrize("hook", HOOKS[:4])
def test_a_lost_b_dec_is_found_again(tmp_path, hook):
    """The descent finds one that gives back what the lost one did."""
    folder = changed(tmp_path, hook, lambda w: w.update(b_dec=torch.zeros_like(w["b_dec"])))
    found = diagnosed(folder, hook)
    assert "a bias is lost: b_dec is zero" in found.sentence
    sound = diagnosed(changed(tmp_path / "sound", hook, lambda _: None), hook)
    assert found.with_b_dec.explained_variance > sound.explained_variance - 0.01


def test_the_broken_demo_lost_its_norm(tmp_path):
    broken = release.resolve("demo-broken").sae(HOOKS[2]).weights
    folder = changed(tmp_path, HOOKS[2], lambda w: w.update(load_file(broken)))
    sentence = diagnosed(folder, HOOKS[2]).sentence
    assert "3.5 times too short" in sentence
    assert "is not folded into its decoder" in sentence


def test_every_red_check_of_an_sae_has_the_same_diagnosis_and_a_green_one_none(long):
    request = asked(long, n_study_sequences=16)
    of_request = Judge(request, LocalExecutor(request.plan))
    cells = [cell for cell in request.limits if cell[1] in ("ce_loss", "sparsity", "next_sae", "stacked")]
    results = {cell: of_request.result(cell, cells) for cell in cells}
    red = [r for r in results.values() if r.outcome in ("failed", "inconclusive")]
    assert {r.sae_id for r in red} >= {HOOKS[2]}
    for result in results.values():
        is_red_sae = result in red and result.sae_id in HOOKS
        assert (result.diagnosis is not None) == is_red_sae
    assert len({id(r.diagnosis) for r in red if r.sae_id == HOOKS[2]}) == 1


def test_an_error_costs_no_verdict(long, monkeypatch):
    def fails(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(diagnosing, "diagnosis", fails)
    found = diagnosed(long, HOOKS[2])
    assert found == not_diagnosed("a bug")
    assert found.sentence == "no diagnosis: a bug"


def corrected(share, explained_variance=0.9):
    return Corrected(explained_variance=explained_variance, ce_increase_nats_per_token=1 - share, recovered_loss=share)


def diagnosis(**more):
    return Diagnosis(
        sentence="", explained_variance=0.3, best_explained_variance=0.9, ce_increase_nats_per_token=1.0, **more
    )


def test_the_cause_that_gives_back_most_is_named_and_of_equal_ones_the_simpler():
    weak, strong = corrected(0.3), corrected(0.9)
    assert "too long" in conclusion(diagnosis(length_ratio=1.6, with_length=strong, with_bias=weak), "here")
    assert "bias" in conclusion(diagnosis(length_ratio=1.6, with_length=weak, with_bias=strong), "here")
    equal = diagnosis(length_ratio=1.6, with_length=corrected(0.88), with_bias=strong, with_length_and_bias=strong)
    assert "bias" not in conclusion(equal, "here")
    few = diagnosis(worst_latents=(7, 8), without_worst_latents=strong)
    assert conclusion(few, "here") == "few latents do it: without 2 (7, 8) 90 % of the loss is gone"


def test_no_cause_is_named_that_gives_back_little():
    found = diagnosis(length_ratio=1.6, with_length=corrected(0.1), with_bias=corrected(0.19), top_tokens_share=0.7)
    assert conclusion(found, "here") == (
        "no single cause: length, bias each give back less than 20 % of the loss; 70 % of it is in 1 % of the tokens"
    )


def test_what_fits_nothing_has_no_length():
    """An arbitrary output costs less if it is shrunk: that is no cause."""
    found = diagnosis(length_ratio=40.0, with_length=corrected(0.8, explained_variance=0.04))
    found = type(found)(**{**{n: getattr(found, n) for n in found.__slots__}, "best_explained_variance": 0.04})
    assert "even with the best length and bias it explains 0.04" in conclusion(found, "here")
