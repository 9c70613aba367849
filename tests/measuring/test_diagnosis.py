"""The diagnosis of a red SAE: what it says, and that its numbers are those of a plain computation."""

import shutil

import pytest
import tiny
import torch
from damaged import CASES, DEMO, HOOKS, broken, changed, copied, swapped, with_long_decoder
from safetensors.torch import load_file

from sae_checks.diagnosis import Corrected, Diagnosis, conclusion, not_diagnosed
from sae_checks.measuring import diagnosing
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.run.judge import Judge
from sae_checks.run.settle import settle


def asked(folder, **more):
    return settle(
        Options(release=str(folder), model=str(DEMO.model), corpus=str(DEMO.corpus), device="cpu", **more),
    )


def diagnosed(folder, sae_id):
    return LocalExecutor(asked(folder).plan).diagnose(sae_id)


def plain(folder, hook, n=16):
    """x, weights and a function from reconstructions to CE increases (sequences, positions from 1), by transformers."""
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
        return -logits.log_softmax(-1)[:, 1:64].gather(-1, tokens[:, 2:65, None])[..., 0]

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
    return with_long_decoder(tmp_path_factory.mktemp("long"))


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
    each = increase(lambda x: reconstructed(x.double(), w)[1].float())
    own = float(each.mean())
    assert found.first_positions_share == pytest.approx(float(each[:, :3].sum() / each.sum()), abs=1e-3)
    costliest = each.flatten().topk(round(0.01 * each.numel())).values
    assert found.top_tokens_share == pytest.approx(float(costliest.sum() / each.sum()), abs=1e-3)
    assert found.ce_increase_nats_per_token == pytest.approx(own, abs=1e-4)
    for change, corrected in (
        (with_length, found.with_length),
        (lambda x: reconstructed(x, w)[1] + error.mean(0), found.with_bias),
        (lambda y: x.mean(0) + (reconstructed(y, w)[1] - mean) / ratio, found.with_length_and_bias),
        (without_worst, found.without_worst_latents),
    ):
        assert corrected.explained_variance == pytest.approx(explained(x, change(x)), abs=1e-4)
        left = float(increase(lambda x, change=change: change(x.double()).float()).mean())
        assert corrected.ce_increase_nats_per_token == pytest.approx(left, abs=1e-4)
        assert corrected.recovered_loss == pytest.approx(1 - left / own, abs=0.01)


@pytest.mark.parametrize("case", CASES)
def test_each_damage_is_named(tmp_path, case):
    make, sae_id, cause = CASES[case]
    assert cause in diagnosed(make(tmp_path), sae_id).sentence


@pytest.mark.parametrize("hook", HOOKS[:4])
def test_a_lost_b_dec_is_found_again(tmp_path, hook):
    """The descent finds one that gives back what the lost one did."""
    folder = changed(tmp_path, hook, lambda w: w.update(b_dec=torch.zeros_like(w["b_dec"])))
    found = diagnosed(folder, hook)
    assert "of the loss): b_dec is zero" in found.sentence
    sound = diagnosed(changed(tmp_path / "sound", hook, lambda _: None), hook)
    assert found.with_b_dec.explained_variance > sound.explained_variance - 0.01


def test_both_of_two_swapped_saes_are_named(tmp_path):
    found = diagnosed(swapped(tmp_path), HOOKS[3])
    assert (found.home_of, found.swapped_with, found.copy_of) == (HOOKS[1], HOOKS[1], ())
    assert found.place.hook == HOOKS[1]


def test_a_copy_and_its_original_are_told_apart(tmp_path):
    """The original is at home; its copy belongs to the other hook and is not swapped with it."""
    folder = copied(tmp_path)
    shutil.copy(folder / HOOKS[0] / "sae_weights.safetensors", folder / HOOKS[2] / "sae_weights.safetensors")
    executor = LocalExecutor(asked(folder).plan)
    original, copy = (executor.diagnose(HOOKS[i], compares_weights=True) for i in (0, 2))
    assert original.sentence == f"{HOOKS[2]} has the same weights; at {HOOKS[0]} they explain 0.98"
    assert f"it has the weights of {HOOKS[0]}" in copy.sentence
    assert (copy.home_of, copy.swapped_with) == (HOOKS[0], None)


def test_a_bias_of_another_sae_is_named(tmp_path):
    foreign = load_file(DEMO.sae(HOOKS[3]).weights)["b_dec"]
    folder = changed(tmp_path, HOOKS[2], lambda w: w.update(b_dec=foreign))
    found = LocalExecutor(asked(folder).plan).diagnose(HOOKS[2], compares_weights=True)
    assert f"b_dec is that of {HOOKS[3]}" in found.sentence


def test_a_norm_that_is_folded_nowhere_is_named(tmp_path):
    """What folding did to encoder, decoder and b_dec, undone."""

    def unfold(w):
        w.update(W_enc=w["W_enc"] * 3.31, W_dec=w["W_dec"] / 3.31, b_dec=w["b_dec"] / 3.31)

    found = diagnosed(changed(tmp_path, HOOKS[2], unfold), HOOKS[2])
    assert "the activation's norm is not folded into the weights" in found.sentence


def test_what_reconstructs_nothing_fits_nowhere(tmp_path):
    folder = changed(tmp_path, HOOKS[2], lambda w: w.update(W_dec=w["W_dec"] * 0))
    assert "even with the best length and bias it explains 0.00" in diagnosed(folder, HOOKS[2]).sentence


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


def diagnosis_at(model, sae):
    return diagnosing.diagnosis(
        model, sae, [], tiny.sequences(), copies=None, n_batch_tokens=64, progress=lambda *_: None
    )


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_both_backends_say_the_same(tiny_models, hooked_models, family):
    sae = tiny.random_sae("blocks.1.hook_mlp_out")
    found, other = (diagnosis_at(models[family], sae) for models in (tiny_models, hooked_models))
    assert found.sentence == other.sentence
    assert found.n_places == other.n_places > 5


@pytest.mark.parametrize("at", ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_pre"])
def test_a_place_beside_its_own_is_found(tiny_models, at):
    """Of one block, too; the SAE knows the few directions that attention's output has."""
    model, home = tiny_models["gpt2"], "blocks.1.hook_attn_out"
    tokens = torch.from_numpy(tiny.sequences().tokens)
    directions = torch.linalg.svd(model.clean(tokens, {home}).activation(home).flatten(0, 1), full_matrices=False)[2]
    basis = directions[:4].T  # (d_model, 4)
    sae = tiny.LinearSae(at, encoder=torch.cat([basis, -basis], 1), decoder=torch.cat([basis, -basis], 1).T)
    found = diagnosis_at(model, sae)
    assert found.place is not None, found.sentence
    assert found.place.hook == home


def test_what_fits_everywhere_belongs_where_it_is(tiny_models):
    found = diagnosis_at(tiny_models["gpt2"], tiny.identity_sae("blocks.1.hook_resid_pre"))
    assert found.place is None
    assert found.sentence.startswith("nothing is wrong within the training context")


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
    assert conclusion(few, "here") == "2 latents do harm (90 % of the loss): without 7, 8 the rest is better"


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


def test_an_sae_before_a_broken_one_has_no_cause_of_its_own(tmp_path):
    """It is red in next_sae, too; the SAE that reads it is to blame."""
    sentence = diagnosed(broken(tmp_path), HOOKS[1]).sentence
    assert sentence == f"red because of the next SAE, {HOOKS[2]} (explained variance 0.45)"
