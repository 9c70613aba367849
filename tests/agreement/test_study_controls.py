"""Every study of a release is seen green on sound SAEs and red on a broken one, on the demo and by its limits."""

import json
import shutil
from itertools import pairwise

import pytest
import torch
from builders import cells
from judged import judge
from safetensors.torch import load_file, save_file

from sae_checks import checks
from sae_checks.judging import propagation_readings, verdict
from sae_checks.judging.budget import Budget
from sae_checks.measuring.local import LocalExecutor
from sae_checks.measuring.studies.propagation import Propagation
from sae_checks.measuring.studies.study import new_passes, run
from sae_checks.plan.options import Options
from sae_checks.record import record
from sae_checks.record.results import Record, ReleaseFacts
from sae_checks.release import release
from sae_checks.run.settle import settle
from sae_checks.run.table import ROWS
from sae_checks.saes.sae import Reconstruction

STUDIES = tuple(row.check.name for row in ROWS if row.is_study)
DEMO = release.resolve("demo")
HOOKS = [sae.hook for sae in DEMO.saes]
STACK = "all of resid"


def judged(folder, names=tuple(STUDIES)):
    """By subject and check, the results of the studies of the SAEs in *folder*, which is called demo."""
    options = Options(
        release=str(folder), model=str(DEMO.model), corpus=str(DEMO.corpus), lambada=str(DEMO.lambada), device="cpu"
    )
    asked = settle(options)
    executor = LocalExecutor(asked.plan)
    cells = [cell for cell in asked.limits if cell[1] in names]
    return (
        {cell: judge(executor, asked, cell[0], checks.named(cell[1]), cells) for cell in cells},
        executor,
        asked,
    )


def copied(to):
    for sae in DEMO.saes:
        shutil.copytree(sae.weights.parent, to / sae.sae_id)
    return to


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return judged(copied(tmp_path_factory.mktemp("sound") / "demo"))[0]


def outcomes(results, check):
    return {subject: result.outcome for (subject, name), result in results.items() if name == check}


def test_the_demo_is_green(sound):
    """As trained every SAE is at home in its layer and disturbs those behind it within the limits."""
    for check in ("propagation", "next_sae", "last_sae"):
        assert outcomes(sound, check) == {**dict.fromkeys(HOOKS[:-1], "passed"), HOOKS[-1]: "not_measured"}
    assert set(outcomes(sound, "own_layer").values()) == {"passed"}
    assert outcomes(sound, "stacked") == {STACK: "passed"}
    assert (
        set(outcomes(sound, "random_error").values())
        == set(outcomes(sound, "stacked_lambada").values())
        == {"reported"}
    )


def test_a_stack_costs_more_with_every_sae(sound):
    """The cumulative curve rises, in loss and in answers, far above the sum of its parts."""
    for check, measure in (("stacked", "stack_ce_increase"), ("stacked_lambada", "stack_accuracy_drop")):
        steps = [{r.measure: r.value for r in step.estimates}[measure] for step in sound[STACK, check].stack_steps]
        assert all(after >= before - 0.01 for before, after in pairwise(steps))  # a few answers are won by chance
        assert len(steps) == len(HOOKS)
        assert steps[-1] > 5 * steps[1]


def test_the_demo_shows_what_the_study_claims(sound, tmp_path):
    """Read from its record: good within the training context, bad beyond, worst early, the error growing downstream."""
    asked = settle(Options(release="demo", n_sequences=64, device="cpu"))
    executor = LocalExecutor(asked.plan)
    of_text = cells(HOOKS, checks.CE_LOSS, checks.LONG_CONTEXT)
    results = [judge(executor, asked, hook, checks.named(name), of_text) for hook, name in of_text]
    results += [sound[hook, "propagation"] for hook in HOOKS]
    whole = Record(
        started="2026-11-22T00:00:00+00:00",
        wall_s=0.0,
        release=ReleaseFacts(name="demo", source="embedded", revision=None, sae_ids=tuple(HOOKS)),
        options=(),
        software=(),
        platform="",
        results=tuple(results),
    )
    record.write(whole, tmp_path / "record.json")
    kept = record.read(tmp_path / "record.json")
    values = {(r.sae_id, e.measure): e.value for r in kept.results for e in r.estimates}
    within, beyond = ([values[hook, f"ce_increase_{place}"] for hook in HOOKS] for place in ("within", "beyond"))
    degradation = [values[hook, "degradation"] for hook in HOOKS]
    assert max(within) < 0.1
    assert within.index(max(within)) == len(HOOKS) - 1  # within it late layers are worse than early ones
    assert all(b > w for b, w in zip(beyond, within, strict=True))
    assert degradation[0] > 5 * degradation[1] > 5 * max(degradation[2:])  # beyond it the order is reversed
    growth = {r.sae_id: [cell.error_growth for cell in r.downstream] for r in kept.results if r.downstream}
    assert list(growth) == HOOKS[:-1]
    for of_sae in growth.values():
        assert of_sae == sorted(of_sae)
        assert of_sae[0] > 1
    curves = {r.sae_id: c for r in kept.results for c in r.curves if c.measure == "ce_increase"}
    first = dict(zip(curves[HOOKS[0]].position, curves[HOOKS[0]].value, strict=True))
    assert max(first[p] for p in range(10, 60)) < 0.2
    assert min(first[p] for p in range(70, 120)) > 5


def test_exact_saes_are_green(tmp_path):
    """Identity SAEs cost nothing anywhere, alone or together; that there is no error to follow is red."""
    folder = tmp_path / "demo"
    for i, sae in enumerate(DEMO.saes):
        place = folder / sae.sae_id
        place.mkdir(parents=True)
        eye = torch.eye(sae.d_in) * 2.0**i
        cfg = json.loads((sae.weights.parent / "cfg.json").read_text())
        (place / "cfg.json").write_text(json.dumps({**cfg, "d_sae": 2 * sae.d_in}))
        weights = {
            "W_enc": torch.cat([eye, -eye], 1),
            "W_dec": torch.cat([eye, -eye], 0) / 4.0**i,
            "b_enc": torch.zeros(2 * sae.d_in),
            "b_dec": torch.zeros(sae.d_in),
        }
        save_file(weights, place / "sae_weights.safetensors")
    results, executor, asked = judged(folder, ("propagation", "next_sae", "last_sae", "stacked"))
    assert outcomes(results, "propagation") == {**dict.fromkeys(HOOKS[:-1], "failed"), HOOKS[-1]: "not_measured"}
    assert "the splice makes no error" in results[HOOKS[0], "propagation"].reason
    for check in ("next_sae", "last_sae"):
        assert list(outcomes(results, check).values()) == ["passed"] * 4 + ["not_measured"]
    assert outcomes(results, "stacked") == {STACK: "passed"}
    assert {r.measure: r.value for r in results[STACK, "stacked"].estimates}["stack_ce_increase"] == pytest.approx(
        0, abs=1e-4
    )
    for hook in HOOKS:
        assert judge(executor, asked, hook, checks.DISTINCT).outcome == "passed"


def test_a_wrong_layer_a_copy_and_a_ruined_successor_are_red(tmp_path):
    """The third SAE gets the first one's weights: not at home, not distinct, and those behind it cannot read it."""
    folder = copied(tmp_path / "demo")
    shutil.copy(folder / HOOKS[0] / "sae_weights.safetensors", folder / HOOKS[2] / "sae_weights.safetensors")
    results, executor, asked = judged(folder, ("propagation", "next_sae", "last_sae", "own_layer", "stacked"))
    assert [hook for hook, outcome in outcomes(results, "own_layer").items() if outcome == "failed"] == [HOOKS[2]]
    for check in ("next_sae", "last_sae"):
        assert results[HOOKS[2], check].outcome == "failed", results[HOOKS[2], check].reason
    assert results[STACK, "stacked"].outcome == "failed"
    copies = {hook: judge(executor, asked, hook, checks.DISTINCT) for hook in HOOKS}
    assert [hook for hook, result in copies.items() if result.outcome == "failed"] == [HOOKS[0], HOOKS[2]]
    assert f"the same weights as {HOOKS[2]}" in copies[HOOKS[0]].reason


def test_an_error_that_is_carried_further_than_the_demos_is_red(tmp_path):
    """A small error where the model listens arrives larger than the limit of the demo's own SAE allows."""
    _, executor, asked = judged(copied(tmp_path / "demo"), ())
    ready, last = executor._saes.get(HOOKS[0]), executor._saes.get(HOOKS[-1]).sae
    sequences = executor._corpus("text", ready).sequences.first(48, 64)
    directions = torch.randn(12, ready.described.d_in, generator=torch.Generator().manual_seed(0))

    class Aimed:
        sae_id = hook = hook_out = HOOKS[0]
        head_slice, center, n_training_context_tokens = slice(0, None), False, 64

        def __init__(self, direction):
            self.direction = direction / direction.norm()

        def reconstruct(self, x):
            off = 0.03 * x.norm(dim=-1, keepdim=True) * self.direction
            return Reconstruction(output=x + off, n_active=torch.ones(x.shape[:2], dtype=torch.long))

    def outcomes_of(saes, n):
        few = sequences.first(n, 64)
        found = run(
            ready.model,
            [Propagation(one, [last], n) for one in saes],
            new_passes(ready.model, few, n_batch_tokens=4096),
        )
        limit, budget = asked.limits[HOOKS[0], "propagation"][0], Budget(n_planned=n, n_most=n, n_checks=65)
        readings = [propagation_readings.propagation(losses) for losses in found]
        return [verdict.judge(each, limit, budget).outcome for each in readings], readings

    aimed = [Aimed(direction) for direction in directions]
    _, readings = outcomes_of(aimed, 8)
    carried = [next(r.value for r in each if r.measure == "amplification_last") for each in readings]
    furthest = aimed[carried.index(max(carried))]
    assert outcomes_of([ready.sae, furthest], 48)[0] == ["passed", "failed"]


def test_a_dead_stack_loses_the_answers_where_a_limit_is_written(tmp_path):
    """stacked_lambada is judged by the user's limit: the demo's whole stack loses three answers in four."""
    folder, limits = copied(tmp_path / "demo"), tmp_path / "limits.toml"
    limits.write_text(
        'schema = 1\n[default.stacked_lambada]\nmeasure = "stack_accuracy_drop"\nmax = 0.2\nunit = "fraction"\n'
        'source = "a test"\n[default.random_error]\nmeasure = "kl_ratio_isotropic"\nmax = 1.0\n'
        'unit = "ratio"\nsource = "a test"\n'
    )
    options = Options(
        release=str(folder),
        model=str(DEMO.model),
        corpus=str(DEMO.corpus),
        lambada=str(DEMO.lambada),
        device="cpu",
        thresholds=limits,
    )
    asked = settle(options)
    executor = LocalExecutor(asked.plan)
    cells = [(STACK, "stacked_lambada"), (HOOKS[4], "random_error")]
    for subject, name in cells:
        result = judge(executor, asked, subject, checks.named(name), cells)
        assert result.outcome == "failed", result.reason


def test_weights_are_told_apart_by_their_numbers(tmp_path):
    """A copy saved anew, with other metadata in its file, is still a copy."""
    folder = copied(tmp_path / "demo")
    weights = load_file(folder / HOOKS[0] / "sae_weights.safetensors")
    save_file(weights, folder / HOOKS[1] / "sae_weights.safetensors", metadata={"made": "again"})
    _, executor, _ = judged(folder, ())
    assert executor.copies(HOOKS[0]).losses == (HOOKS[1],)
    assert executor.copies(HOOKS[2]).losses == ()


REWRITTEN = {
    "float16": lambda w: {name: each.half() for name, each in w.items()},
    "bfloat16": lambda w: {name: each.bfloat16() for name, each in w.items()},
    "8 bits": lambda w: {
        name: (each / each.abs().max() * 127).round() / 127 * each.abs().max() for name, each in w.items()
    },
    "another order": lambda w: {
        "W_dec": w["W_dec"].flip(0).contiguous(),
        "W_enc": w["W_enc"].flip(1).contiguous(),
        "b_enc": w["b_enc"].flip(0).contiguous(),
        "b_dec": w["b_dec"],
    },
}


@pytest.mark.parametrize("how", REWRITTEN)
def test_a_copy_is_found_by_its_latents(tmp_path, how):
    """Rounded or in another order of its latents, a copy is still a copy, both ways."""
    folder = copied(tmp_path / "demo")
    weights = REWRITTEN[how](load_file(folder / HOOKS[0] / "sae_weights.safetensors"))
    save_file(weights, folder / HOOKS[1] / "sae_weights.safetensors")
    _, executor, _ = judged(folder, ())
    assert executor.copies(HOOKS[0]).losses == (HOOKS[1],)
    assert executor.copies(HOOKS[1]).losses == (HOOKS[0],)


@pytest.mark.parametrize("name", ["b_dec", "b_enc", "W_dec"])
def test_an_sae_that_differs_is_no_copy(tmp_path, name):
    """Another bias, or a tenth of the decoder from elsewhere: not the same SAE."""
    folder = copied(tmp_path / "demo")
    weights, others = (load_file(folder / HOOKS[i] / "sae_weights.safetensors") for i in (0, 1))
    n = len(weights[name]) // 10 if name == "W_dec" else None
    weights[name][:n] = others[name][:n]
    save_file(weights, folder / HOOKS[1] / "sae_weights.safetensors")
    _, executor, _ = judged(folder, ())
    assert executor.copies(HOOKS[0]).losses == ()
