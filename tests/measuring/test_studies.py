"""Studies against computations that know nothing of them, and their controls."""

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_checks import checks
from sae_checks.judging import corpus_readings, propagation_readings, study_readings
from sae_checks.judging.estimates import Estimate, NotMeasured
from sae_checks.losses import PropagationLosses, RandomErrorLosses, StackLosses
from sae_checks.measuring import corpus_pass
from sae_checks.measuring.scoring import Fault
from sae_checks.measuring.studies.neighbours import Neighbours, neighbouring_hooks, places_of_block
from sae_checks.measuring.studies.propagation import Propagation
from sae_checks.measuring.studies.random_error import RandomError
from sae_checks.measuring.studies.stacked import Stacked, StackedItems
from sae_checks.measuring.studies.study import new_passes, run
from sae_checks.release import hooks

FAMILY = "gpt2"
HOOKS = tiny.HOOKS  # the residual stream before each of three blocks, and behind the last


def studied(model, studies, sequences, *, n_batch_tokens=64):
    found = run(model, studies, new_passes(model, sequences, n_batch_tokens=n_batch_tokens))
    assert not any(isinstance(losses, Fault) for losses in found), found
    return found


def values(readings):
    return {r.measure: r.value for r in readings if isinstance(r, Estimate)}


def spliced_states(model, sequences, row, saes):
    """Every residual stream of plain transformers with *saes* spliced behind BOS, and the log-probabilities."""
    ids = torch.from_numpy(sequences.tokens[row : row + 1, : sequences.lengths[row]])
    blocks = model._model.transformer.h
    handles, states = [], {}

    def at(boundary, x):
        for sae in saes:
            if sae.hook == HOOKS[boundary]:
                x = torch.cat([x[:, :1], sae.reconstruct(x[:, 1:]).output], 1)
        states[boundary] = x
        return x

    handles.append(
        blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: ((at(0, args[0]), *args[1:]), kwargs), with_kwargs=True
        )
    )
    for i, block in enumerate(blocks):
        handles.append(block.register_forward_hook(lambda _, __, output, i=i: at(i + 1, output)))
    try:
        with torch.no_grad():
            log_p = torch.log_softmax(model._model(ids).logits[0].float(), -1)
    finally:
        for handle in handles:
            handle.remove()
    return states, log_p, ids


def test_propagation_is_what_plain_transformers_carries(tiny_models):
    """Relative error, cosine, explained variance and L0 at later hooks equal those of whole plain passes."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    saes = [tiny.random_sae(hook, seed=i) for i, hook in enumerate(HOOKS)]
    (losses,) = studied(model, [Propagation(saes[1], saes, len(sequences.rows))], sequences)
    assert [one.hook for one in losses.later] == [HOOKS[2], HOOKS[3]]
    error = norm = cosine = n = 0.0
    read, given, n_active = [], [], []
    for row in range(len(sequences.rows)):
        clean, *_ = spliced_states(model, sequences, row, [])
        disturbed, *_ = spliced_states(model, sequences, row, [saes[1]])
        x, y = clean[3][0, 1:8], disturbed[3][0, 1:8]  # behind BOS, within the training context of 8
        error, norm = error + float((x - y).square().sum()), norm + float(x.square().sum())
        cosine, n = cosine + float(torch.cosine_similarity(x, y, -1).sum()), n + len(x)
        made = saes[3].reconstruct(y[None])
        read.append(y)
        given.append(made.output[0])
        n_active.append(made.n_active.sum())
    x, y = torch.cat(read).double(), torch.cat(given).double()
    explained = 1 - (x - y).square().sum() / (x - x.mean(0)).square().sum()
    cell = propagation_readings.matrix(losses)[-1]
    assert cell.relative_error == pytest.approx((error / norm) ** 0.5, rel=1e-4)
    assert cell.residual_error == pytest.approx(cell.relative_error)
    assert cell.cosine == pytest.approx(cosine / n, abs=1e-5)
    assert cell.explained_variance == pytest.approx(float(explained), abs=1e-4)
    assert cell.l0 == pytest.approx(float(sum(n_active)) / n)
    assert values(propagation_readings.propagation(losses))["relative_error_last"] == pytest.approx(cell.relative_error)


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_stack_is_what_plain_hooks_make_of_it(tiny_models, hooked_models, family):
    """All SAEs at once, each on what the earlier ones left: the loss of whole passes, and the same in both backends."""
    sequences = tiny.sequences()
    saes = [tiny.random_sae(hook, seed=i) for i, hook in enumerate(HOOKS)]
    found = [
        studied(models[family], [Stacked(saes, sequences)], sequences)[0] for models in (tiny_models, hooked_models)
    ]
    for ours, theirs in zip(found[0].steps, found[1].steps, strict=True):
        assert ours.ce_spliced_nats == pytest.approx(theirs.ce_spliced_nats, abs=2e-3)
    if family == FAMILY:
        for n_saes, step in enumerate(found[0].steps, start=1):
            for row in range(len(sequences.rows)):
                _, log_p, ids = spliced_states(tiny_models[family], sequences, row, saes[:n_saes])
                targets = ids[0, 2:9, None]
                expected = -float(log_p[1 : 1 + len(targets)].gather(-1, targets).sum())
                assert step.ce_spliced_nats[row] == pytest.approx(expected, abs=1e-4)


def test_the_first_step_of_a_stack_is_the_splice_of_its_first(tiny_models):
    """One SAE in company of none costs what it costs alone, and an exact stack costs nothing at any step."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    saes = [tiny.random_sae(hook, seed=i) for i, hook in enumerate(HOOKS)]
    exact = [tiny.identity_sae(hook) for hook in HOOKS]
    whole, alone, free = studied(model, [Stacked(s, sequences) for s in (saes, saes[:1], exact)], sequences)
    assert np.array_equal(whole.steps[0].ce_spliced_nats, alone.steps[0].ce_spliced_nats)
    assert [step.sae_id for step in study_readings.stack_steps(whole)] == list(HOOKS)
    for step in study_readings.stack_steps(free):
        assert abs(values(step.estimates)["stack_ce_increase"]) < 1e-5


def test_a_stack_of_transcoders_reads_before_it_writes(tiny_models):
    """A transcoder reads its own hook in the disturbed pass: with an exact one in front nothing changes behind."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    first = tiny.identity_sae("blocks.0.hook_resid_pre")
    second = tiny.random_sae("blocks.1.mlp.hook_in", hook_out="blocks.1.hook_mlp_out")
    together, alone = studied(model, [Stacked(s, sequences) for s in ([first, second], [second])], sequences)
    assert together.steps[1].ce_spliced_nats == pytest.approx(alone.steps[0].ce_spliced_nats, abs=1e-4)


def test_stacked_answers_are_those_of_the_last_step(tiny_models):
    """Lambada with a stack: an exact stack changes no answer, a dead one does."""
    model, items = tiny_models[FAMILY], tiny.sequences(lengths=[9] * 40)
    dead = [
        tiny.LinearSae(h, encoder=torch.eye(tiny.D_MODEL), decoder=torch.zeros(tiny.D_MODEL, tiny.D_MODEL))
        for h in HOOKS
    ]
    exact, broken = studied(
        model, [StackedItems([tiny.identity_sae(h) for h in HOOKS], items), StackedItems(dead, items)], items
    )
    assert np.array_equal(exact.steps[-1].clean_correct, exact.steps[-1].spliced_correct)
    assert broken.steps[-1].spliced_logprob_nats.mean() != pytest.approx(
        broken.steps[-1].clean_logprob_nats.mean(), abs=0.1
    )


def test_at_every_place_an_sae_costs_what_it_costs_there(tiny_models):
    """Home and neighbours are the loss of the same SAE at other hooks, and the margin is to the cheapest of them."""
    model, sequences = tiny_models[FAMILY], tiny.sequences(lengths=[24] * 12)
    sae = tiny.random_sae(HOOKS[1])
    (losses,) = studied(model, [Neighbours(sae, neighbouring_hooks(sae, tiny.N_LAYERS), sequences)], sequences)
    assert losses.hooks == (HOOKS[0], HOOKS[2])
    increases = []
    for hook, span in zip((HOOKS[1], *losses.hooks), (losses.own, *losses.spans), strict=True):
        (alone,) = corpus_pass.measure_text(
            model, [tiny.random_sae(hook)], sequences, n_batch_tokens=64, progress=lambda *_: None
        )
        assert span.ce_spliced_nats == pytest.approx(alone.within.ce_spliced_nats, abs=1e-4)
        increases.append(values(corpus_readings.ce_loss(alone))["ce_increase"])
    found = values(study_readings.own_layer(losses))
    assert found["increase_at_home"] == pytest.approx(increases[0], abs=1e-5)
    assert found["own_layer_margin"] == pytest.approx(min(increases[1:]) - increases[0], abs=1e-5)


def test_at_every_place_of_its_block_an_sae_explains_what_it_explains_there(tiny_models):
    """The ratio is plain: the root of what is left unexplained where it explains best, over that at its own hook."""
    model, sequences = tiny_models[FAMILY], tiny.sequences(lengths=[24] * 12)
    sae = tiny.random_sae("blocks.1.hook_mlp_out")
    places = places_of_block(sae, model)
    (losses,) = studied(model, [Neighbours(sae, neighbouring_hooks(sae, tiny.N_LAYERS), sequences, places)], sequences)
    explained = []
    for hook in (sae.hook, *places):
        (alone,) = corpus_pass.measure_text(
            model, [tiny.random_sae(hook)], sequences, n_batch_tokens=64, progress=lambda *_: None
        )
        explained.append(values(corpus_readings.sparsity(alone))["explained_variance"])
    found = values(study_readings.own_layer(losses))
    assert found["explained_variance_at_home"] == pytest.approx(explained[0], abs=1e-4)
    ratio = ((1 - max(explained[1:])) / (1 - explained[0])) ** 0.5
    assert found["own_place_ratio"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("blocks.1.hook_resid_pre", ["resid_mid"]),
        ("blocks.1.hook_resid_mid", ["resid_pre", "resid_post"]),
        ("blocks.1.hook_mlp_out", ["z", "attn_out"]),
    ],
)
def test_the_other_places_of_a_block(tiny_models, hook, expected):
    """On the stream or beside it, without those that hold the activation of the hook itself or of a hook beside it."""
    found = places_of_block(tiny.identity_sae(hook), tiny_models[FAMILY])
    assert [hooks.parse_known(name).place for name in found] == expected
    assert places_of_block(tiny.random_sae("blocks.1.mlp.hook_in", hook_out=hook), tiny_models[FAMILY]) == ()


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("blocks.0.hook_resid_pre", ["blocks.1.hook_resid_pre"]),
        ("blocks.2.hook_resid_pre", ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_post"]),
        ("blocks.2.hook_resid_post", ["blocks.1.hook_resid_post"]),
        ("blocks.0.hook_resid_post", ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_post"]),
        ("blocks.1.hook_mlp_out", ["blocks.0.hook_mlp_out", "blocks.2.hook_mlp_out"]),
    ],
)
def test_the_places_beside_a_hook(hook, expected):
    """The same place of the blocks beside, where the model has them."""
    assert [written for _, written in neighbouring_hooks(tiny.identity_sae(hook), 3)] == expected


class Noisy(tiny.LinearSae):
    """The identity plus an error of a fixed share of the norm: drawn at random, or along one direction."""

    def __init__(self, hook, direction=None, share=0.2):
        super().__init__(hook, encoder=None, decoder=None)
        self.direction, self.share = direction, share

    def reconstruct(self, x):
        made = tiny.identity_sae(self.hook).reconstruct(x)
        generator = torch.Generator().manual_seed(int(x.abs().sum() * 1000) % 2**31)
        drawn = torch.randn(x.shape, generator=generator) if self.direction is None else self.direction.expand_as(x)
        size = self.share * x.norm(dim=-1, keepdim=True)
        return type(made)(output=x + size * drawn / drawn.norm(dim=-1, keepdim=True), n_active=made.n_active)


def test_a_random_error_is_no_worse_than_chance_and_an_aimed_one_is(tiny_models):
    """An SAE whose error is drawn evenly has a ratio of 1; one whose error points where the model listens, more."""
    model, sequences = tiny_models[FAMILY], tiny.sequences(lengths=[24] * 48)
    hook = HOOKS[3]  # before the last norm alone, where a direction's effect can be chosen
    unembedding = model._model.get_output_embeddings().weight.detach()
    _, _, directions = torch.linalg.svd(unembedding - unembedding.mean(0), full_matrices=False)
    studies = [RandomError(Noisy(hook, direction), sequences, 0) for direction in (None, directions[0], directions[-1])]
    chance, aimed, lost = (
        values(study_readings.random_error(losses))["kl_ratio_isotropic"]
        for losses in studied(model, studies, sequences)
    )
    assert 0.8 < chance < 1.25
    assert lost < chance < aimed


def test_random_errors_have_the_splice_own_size_and_do_not_depend_on_batches(tiny_models):
    """The same noise for a sequence whatever stands beside it; an exact SAE has no error to compare with."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    made = [
        studied(model, [RandomError(tiny.random_sae(HOOKS[1]), sequences, 0)], sequences, n_batch_tokens=n)[0]
        for n in (24, 1000)
    ]
    assert made[0].kl_isotropic_nats == pytest.approx(made[1].kl_isotropic_nats, rel=1e-3, abs=1e-5)
    assert made[0].kl_covariance_nats == pytest.approx(made[1].kl_covariance_nats, rel=1e-3, abs=1e-5)
    (exact,) = studied(model, [RandomError(tiny.identity_sae(HOOKS[1]), sequences, 0)], sequences)
    assert all(isinstance(r, NotMeasured) for r in study_readings.random_error(exact))


def test_an_exact_splice_is_followed_nowhere_and_disturbs_nobody(tiny_models):
    """Without an error there is none to follow, and the later SAEs explain what they explained."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    saes = [tiny.identity_sae(HOOKS[0]), tiny.random_sae(HOOKS[1]), tiny.random_sae(HOOKS[3], seed=5)]
    (losses,) = studied(model, [Propagation(saes[0], saes, len(sequences.rows))], sequences)
    own_error, *others = propagation_readings.propagation(losses)
    assert own_error.value < propagation_readings.LEAST_ERROR
    assert {r.reason.partition(" (")[0] for r in others} == {"the splice makes no error to follow"}
    for readings, name in (
        (propagation_readings.next_sae(losses), "next"),
        (propagation_readings.last_sae(losses), "last"),
    ):
        assert abs(values(readings)[f"{name}_explained_variance_loss"]) < 1e-5


def test_centring_is_no_error_to_follow(tiny_models):
    """Of centred SAEs the splice takes the mean over d_model away: a LayerNorm model cannot tell, nor may the check."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    centred, plain = (
        [tiny.random_sae(hook, seed=i, scale=0.05, center=center) for i, hook in enumerate(HOOKS)]
        for center in (True, False)
    )
    found = []
    for saes in (centred, plain):
        (losses,) = studied(model, [Propagation(saes[0], saes, len(sequences.rows))], sequences)
        found.append(
            [(cell.relative_error, cell.residual_error, cell.cosine) for cell in propagation_readings.matrix(losses)]
        )
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), rel=0.35)
    exact = [tiny.identity_sae(hook, center=True) for hook in HOOKS]
    (losses,) = studied(model, [Propagation(exact[0], exact, len(sequences.rows))], sequences)
    assert max(cell.relative_error for cell in propagation_readings.matrix(losses)) < 1e-5


def test_a_dead_sae_ruins_those_behind_it(tiny_models):
    """Zeros in place of the activation: the later SAE no longer explains what reaches it as before."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    dead = tiny.LinearSae(HOOKS[1], encoder=torch.eye(tiny.D_MODEL), decoder=torch.zeros(tiny.D_MODEL, tiny.D_MODEL))
    known = model.clean(torch.from_numpy(sequences.tokens), [HOOKS[3]]).activation(HOOKS[3])[:, 1:8].flatten(0, 1)
    mean = known.mean(0)
    _, _, directions = torch.linalg.svd(known - mean, full_matrices=False)
    kept = directions[:8]

    class Later(tiny.LinearSae):
        def reconstruct(self, x):
            made = tiny.identity_sae(self.hook).reconstruct(x)
            return type(made)(output=mean + (x - mean) @ kept.T @ kept, n_active=made.n_active)

    later = Later(HOOKS[3], encoder=None, decoder=None)
    (losses,) = studied(model, [Propagation(dead, [dead, later], len(sequences.rows))], sequences)
    found = values(propagation_readings.last_sae(losses))
    assert found["last_explained_variance_loss"] > 0.1
    assert values(propagation_readings.propagation(losses))["own_error"] == pytest.approx(1.0, abs=1e-6)


def test_the_last_sae_has_nobody_behind_it(tiny_models):
    """A release with a single SAE, and the last SAE of any: not measured, with its reason."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    alone = tiny.random_sae(HOOKS[1])
    (losses,) = studied(model, [Propagation(alone, [alone], len(sequences.rows))], sequences)
    for of in (propagation_readings.propagation, propagation_readings.next_sae, propagation_readings.last_sae):
        assert {r.reason for r in of(losses)} == {"there is no SAE behind this one in the release"}
    assert propagation_readings.matrix(losses) == ()


def test_studies_do_not_depend_on_batches_or_company(tiny_models):
    """One study alone and several together, in batches of any size: the same numbers."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()
    saes = [tiny.random_sae(hook, seed=i) for i, hook in enumerate(HOOKS)]

    def made():
        return [Propagation(saes[0], saes, len(sequences.rows)), Stacked(saes, sequences)]

    together = studied(model, made(), sequences, n_batch_tokens=1000)
    for i, alone in enumerate(made()):
        (losses,) = studied(model, [alone], sequences, n_batch_tokens=24)
        if isinstance(losses, StackLosses):
            expected = [step.ce_spliced_nats for step in together[i].steps]
            assert [step.ce_spliced_nats for step in losses.steps] == [pytest.approx(e, abs=1e-3) for e in expected]
        else:
            assert isinstance(losses, PropagationLosses)
            pairs = zip(propagation_readings.matrix(losses), propagation_readings.matrix(together[i]), strict=True)
            assert all(a.relative_error == pytest.approx(b.relative_error, rel=1e-4) for a, b in pairs)


def test_a_study_that_fails_leaves_the_others(tiny_models):
    """A RuntimeError in one study is its own fault; the others are measured."""
    model, sequences = tiny_models[FAMILY], tiny.sequences()

    class Fails(tiny.LinearSae):
        def reconstruct(self, _):
            raise RuntimeError("out of memory")

    bad, good = Fails(HOOKS[0], encoder=None, decoder=None), tiny.random_sae(HOOKS[1])
    found = run(
        model,
        [Propagation(bad, [good], len(sequences.rows)), Propagation(good, [good], len(sequences.rows))],
        new_passes(model, sequences, n_batch_tokens=64),
    )
    assert found[0] == Fault(problem="out of memory")
    assert isinstance(found[1], PropagationLosses)


positive = st.floats(0.01, 10)


@given(st.lists(st.tuples(positive, positive, positive), min_size=8, max_size=20), st.sampled_from([0.25, 2.0, 8.0]))
def test_ratios_to_random_errors_have_no_scale(rows, factor):
    """KL in other units, or sequences in another order: the same ratio; swapped, its inverse."""
    spliced, isotropic, covariance = (np.array(column) for column in zip(*rows, strict=True))
    ones = np.ones(len(rows))

    def ratios(a, b, c, order=slice(None)):
        losses = RandomErrorLosses(
            n_tokens=ones.astype(int),
            kl_spliced_nats=a[order],
            kl_isotropic_nats=b[order],
            kl_covariance_nats=c[order],
            error_squared=ones,
            norm_squared=ones,
        )
        return values(study_readings.random_error(losses))

    plain = ratios(spliced, isotropic, covariance)
    scaled = ratios(spliced * factor, isotropic * factor, covariance * factor, slice(None, None, -1))
    for name in ("kl_ratio_isotropic", "kl_ratio_covariance"):
        assert scaled[name] == pytest.approx(plain[name])
    swapped = ratios(isotropic, spliced, covariance)
    assert swapped["kl_ratio_isotropic"] == pytest.approx(1 / plain["kl_ratio_isotropic"])


def test_every_study_check_has_a_limit_or_is_optional():
    """The catalogue and the shipped limits agree on what is judged by default."""
    from sae_checks.judging import thresholds

    shipped = thresholds.load()
    for check in checks.CHECKS:
        if not check.is_exact:
            assert (not shipped.find("r", "a", check.name)) == check.is_optional, check.name
