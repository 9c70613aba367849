"""A pass in rounds: SAEs leave it when they are decided, and nobody else's numbers change."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_checks.measuring import corpus_pass
from sae_checks.measuring.choices import ChoiceSums
from sae_checks.measuring.scoring import Fault, round_ends
from sae_checks.measuring.studies.neighbours import Neighbours, neighbouring_hooks
from sae_checks.measuring.studies.propagation import Propagation
from sae_checks.measuring.studies.random_error import RandomError
from sae_checks.measuring.studies.stacked import Stacked
from sae_checks.measuring.studies.study import KeptPasses, new_passes, run

HOOKS = tiny.HOOKS
LENGTHS = [24, 9, 17, 24, 12, 5, 24, 21, 7, 24, 18, 24]
ENDS = (4, 8, 12)


def quiet(*_):
    """No progress line."""


def passed(model, saes, sequences, **how):
    return corpus_pass.measure_text(model, saes, sequences, n_batch_tokens=60, progress=quiet, **how)


def leaving(model, saes, sequences, *stays, ends=ENDS, **how):
    """Losses of a pass in which the i-th SAE stays for stays[i] sequences."""
    rounds = corpus_pass.text_rounds(model, saes, sequences, n_batch_tokens=60, progress=quiet, ends=ends, **how)
    for sums in rounds:
        for one, n_stays in zip(sums, stays, strict=True):
            if one.is_active:
                one.is_decided = one.n_measured >= n_stays
    return tuple(one.losses() for one in sums)


def arrays(losses, name=""):
    """(name, array) of all that *losses* hold but what is summed over sequences."""
    for field in fields(losses):
        value = getattr(losses, field.name)
        if field.name in ("by_position", "ever_active") or value is None or isinstance(value, int | str):
            continue
        if is_dataclass(value):
            yield from arrays(value, f"{name}{field.name}.")
        else:
            yield f"{name}{field.name}", np.asarray(value)


def same(one, other, n, **close):
    of_other = dict(arrays(other))
    for name, array in arrays(one):
        np.testing.assert_allclose(array, of_other[name][:n], err_msg=name, **close)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_who_leaves_is_measured_so_far_and_changes_nobody(tiny_models, family):
    """The first sequences as in the whole pass, to the bit, whoever else is there; and what stays is as if alone."""
    model, sequences = tiny_models[family], tiny.sequences(lengths=LENGTHS)
    saes = [tiny.random_sae(hook, seed=i) for i, hook in enumerate(HOOKS)]
    whole = leaving(model, saes, sequences, 12, 12, 12, 12)
    some = leaving(model, saes, sequences, 4, 12, 8, 4)
    assert [len(losses.documents) for losses in some] == [4, 12, 8, 4]
    for one, other in zip(some, whole, strict=True):
        same(one, other, len(one.documents), rtol=0)
    (alone,) = leaving(model, saes[2:3], sequences, 8)
    same(alone, some[2], 8, rtol=0)
    for name in ("ce_increase", "running_increase", "unexplained"):
        of_both = (getattr(each.by_position, name) for each in (alone, some[2]))
        assert np.array_equal(*(sums.numerator for sums in of_both))


def test_zero_ablation_changes_no_other_number(tiny_models):
    """What else is measured of an SAE is the same without it, to the bit."""
    model, sequences = tiny_models["gpt2"], tiny.sequences(lengths=LENGTHS)
    saes = [tiny.random_sae(HOOKS[0], seed=0)]
    (without,), (with_it,) = (leaving(model, saes, sequences, 12, ablates=ablates) for ablates in (False, True))
    assert without.ce_ablated_nats is None
    same(without, with_it, 12, rtol=0)


def test_rounds_change_no_number(tiny_models):
    """One pass over all is the same as rounds, but for the rounding of other batches."""
    model, sequences = tiny_models["gpt2"], tiny.sequences(lengths=LENGTHS)
    sae = tiny.random_sae(HOOKS[1])
    (plain,), (rounds,) = passed(model, [sae], sequences), leaving(model, [sae], sequences, 12)
    same(rounds, plain, 12, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        rounds.by_position.unexplained.denominator.sum(), plain.by_position.unexplained.denominator.sum()
    )


def test_the_increase_at_every_position_adds_up_to_the_span(tiny_models):
    """Token by token what the sums per sequence hold, and nothing where nothing is scored."""
    model, sequences = tiny_models["gpt2"], tiny.sequences(lengths=LENGTHS)
    (losses,) = passed(model, [tiny.random_sae(HOOKS[1])], sequences)
    assert np.array_equal(~np.isnan(losses.increase_nats), sequences.scored)
    for span, part in ((losses.within, np.s_[:, :8]), (losses.beyond, np.s_[:, 8:])):
        expected = span.ce_spliced_nats - span.ce_clean_nats
        np.testing.assert_allclose(np.nansum(losses.increase_nats[part], 1), expected, atol=1e-4)


def test_nothing_is_run_for_those_who_have_left(tiny_models, monkeypatch):
    """No clean pass when all are gone, and no splice of one that is."""
    model, sequences = tiny_models["gpt2"], tiny.sequences(lengths=LENGTHS)
    seen = {"clean": 0, "resumed": 0}
    clean, resume = type(model).clean, type(model).resume

    def counted(name, of, how):
        def call(self, *args):
            seen[name] += args[0].shape[0] if name == "clean" else 1
            return of(self, *args)

        monkeypatch.setattr(type(model), how, call)

    counted("clean", clean, "clean")
    counted("resumed", resume, "resume")
    leaving(model, [tiny.random_sae(HOOKS[0]), tiny.random_sae(HOOKS[1])], sequences, 4, 4)
    assert seen["clean"] == 4
    resumed = seen["resumed"]
    leaving(model, [tiny.random_sae(HOOKS[0]), tiny.random_sae(HOOKS[1])], sequences, 12, 12)
    assert seen["clean"] == 16
    assert seen["resumed"] - resumed > 2 * resumed


def test_one_that_fails_leaves_with_its_reason(tiny_models):
    """In the second round, and the others go on."""

    class Fails(tiny.LinearSae):
        calls = 0

        def reconstruct(self, x):
            self.calls += 1
            if self.calls > 3:
                raise RuntimeError("out of memory")
            return tiny.identity_sae(self.hook).reconstruct(x)

    model, sequences = tiny_models["gpt2"], tiny.sequences(lengths=LENGTHS)
    bad, good = Fails(HOOKS[0], encoder=None, decoder=None), tiny.random_sae(HOOKS[1])
    found = leaving(model, [bad, good], sequences, 12, 12)
    assert found[0] == Fault(problem="out of memory")
    assert len(found[1].documents) == 12


def test_queries_are_whole_in_every_round(tiny_models):
    """A choice among three options is made of three sequences, however many rounds there are."""
    model, made = tiny_models["gpt2"], tiny.sequences(lengths=[9, 11, 10] * 6)
    rows = type(made)(**{**{f.name: getattr(made, f.name) for f in fields(made)}, "rows": np.repeat(np.arange(6), 3)})
    sae, seen = tiny.random_sae(HOOKS[1]), []

    def choices_of(ends, n_most):
        rounds = corpus_pass.item_rounds(
            model, [sae], rows, n_batch_tokens=30, progress=quiet, ends=ends, sums_of=ChoiceSums
        )
        for (one,) in rounds:
            seen.append(len(one.losses().queries))
            one.is_decided = seen[-1] >= n_most
        return one.losses()

    whole = choices_of((len(rows.rows),), 6)
    seen.clear()
    some = choices_of(round_ends(rows.rows, 2), 4)
    assert seen == [2, 4]
    assert len(some.queries) == 4
    same(some, whole, 4, rtol=1e-4, atol=1e-4)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=30),
    st.integers(1, 9),
    st.lists(st.integers(-3, 60), max_size=4),
)
def test_rounds_end_between_rows_and_with_the_last(n_options, n_per_round, also):
    """Rising, up to all of them; only where somebody asks for it does one end within a row."""
    rows = np.repeat(np.arange(len(n_options)), n_options)
    ends = round_ends(rows, n_per_round, also)
    assert list(ends) == sorted(set(ends))
    assert ends[-1] == len(rows)
    borders = np.cumsum(n_options)
    assert all(end in borders or end in also for end in ends)
    assert {int(b) for b in borders[n_per_round - 1 :: n_per_round]} <= set(ends)


# -- studies on the same clean pass --


def studies(sequences):
    saes = [tiny.random_sae(hook, seed=i, context=10) for i, hook in enumerate(HOOKS)]
    n = len(sequences.rows)
    yield from (Propagation(sae, saes, n) for sae in saes)
    yield from (Neighbours(sae, neighbouring_hooks(sae, tiny.N_LAYERS), sequences) for sae in saes)
    yield from (RandomError(sae, sequences, seed=3) for sae in saes)
    yield Stacked(saes, sequences)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
@pytest.mark.parametrize("n_positions", [10, 24])
def test_studies_find_on_a_kept_pass_what_they_find_on_their_own(tiny_models, family, n_positions):
    """Whether it was cut or not, and though all SAEs have left the pass before it was full."""
    model, sequences = tiny_models[family], tiny.sequences(lengths=LENGTHS)
    few = sequences.first(8, n_positions)
    hooks = frozenset().union(*(study.hooks for study in studies(few)))
    kept = KeptPasses(few, hooks)
    (losses,) = leaving(model, [tiny.random_sae(HOOKS[0])], sequences, 4, watch=kept)
    assert len(losses.documents) == 4
    assert kept.holds(few, hooks)
    assert not kept.holds(sequences.first(7, n_positions), hooks)
    assert not kept.holds(few, hooks | {"blocks.1.hook_mlp_out"})
    own = new_passes(model, few, n_batch_tokens=60)
    for one, other in zip(run(model, list(studies(few)), kept), run(model, list(studies(few)), own), strict=True):
        assert not isinstance(one, Fault), one
        for (name, array), (_, expected) in zip(flat(one), flat(other), strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-4, err_msg=name)


def test_progress_of_studies_counts_each_study_and_epoch(tiny_models):
    """Each sequence once for each; a study that takes long is not silent."""
    model, few = tiny_models["gpt2"], tiny.sequences(lengths=LENGTHS)
    of_few, n_seen = list(studies(few)), []
    run(model, of_few, new_passes(model, few, n_batch_tokens=60), lambda batch: n_seen.append(len(batch.sequences)))
    assert sum(n_seen) == len(few.rows) * sum(study.n_epochs for study in of_few)


def flat(losses):
    """All arrays of a study's losses, tuples of dataclasses included."""
    for field in fields(losses):
        value = getattr(losses, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if is_dataclass(one):
                yield from flat(one)
            elif isinstance(one, np.ndarray):
                yield field.name, one


def test_a_kept_pass_holds_on_to_no_more_than_it_needs(tiny_models):
    """Of a long context only the beginning stays in memory."""
    model, sequences = tiny_models["gpt2"], tiny.sequences(lengths=[24] * 12)
    few = sequences.first(8, 6)
    kept = KeptPasses(few, {HOOKS[1]})
    leaving(model, [], sequences, ends=(8, 12), watch=kept)
    for batch, clean in kept(frozenset()):
        assert batch.tokens.shape[1] == 7
        for tensor in (clean.hidden, *clean.captured[HOOKS[1]], *clean.boundaries.values()):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    assert isinstance(kept(frozenset())[0][1].hidden, torch.Tensor)
