"""
SAEs with all kinds of damage: what must be red, by which measure; and what is as good as before, which stays green.

Judged by the default limits, without Lambada and the Children's Book Test unless a case is of Lambada.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import damage
import pytest
import torch
from damage import (
    both,
    cast,
    configured,
    described,
    foreign,
    lost,
    one_too_long,
    permuted,
    principal_components,
    scaled,
    unfolded,
    weight,
)

from sae_checks import checks
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.release.converters import quiet
from sae_checks.run.judge import Judge
from sae_checks.run.settle import settle

ERROR = "error"
"""In place of a measure: the SAE is refused, and all its checks are errors."""

_BIAS = {
    "b_dec lost": (scaled("b_dec", 0), "reconstruction_bias"),
    "b_dec doubled": (scaled("b_dec", 2), "reconstruction_bias"),
}
_OF_ALL = {
    "decoder x 0.8": (scaled("W_dec", 0.8), "relative_reconstruction_bias"),
    "decoder x 1.2": (scaled("W_dec", 1.2), "relative_reconstruction_bias"),
    "decoder x 1.6": (scaled("W_dec", 1.6), "relative_reconstruction_bias"),
    "b_dec of the neighbour": (foreign("b_dec"), "reconstruction_bias"),
    "half the decoder zero": (damage.half, "zero_decoder_rows"),
    "1 % of the encoder permuted": (permuted("W_enc", 0.01), "harmful_mass"),
    "10 % of the encoder permuted": (permuted("W_enc", 0.1), "harmful_mass"),
    "decoder permuted": (permuted("W_dec"), "explained_variance"),
    "a row too long": (one_too_long(), "harmful_mass"),
    "decoder zero": (scaled("W_dec", 0), "explained_variance"),
    "decoder of the neighbour": (foreign("W_dec"), "harmful_mass"),
    "not a number": (damage.nan, ERROR),
}
_OF_RELU = {
    # L1 shrinks sound SAEs as well, so that their length has a wider limit
    "decoder x 0.8": (scaled("W_dec", 0.8), "reconstruction_bias"),
    "decoder x 1.2": (scaled("W_dec", 1.2), "harmful_mass"),
    "encoder x 1.3": (scaled("W_enc", 1.3), "relative_reconstruction_bias"),
    "b_enc lost": (scaled("b_enc", 0), "harmful_mass"),
    "untrained, tied": (damage.untrained, "harmful_mass"),
    "48 principal components": (principal_components(48), "l0_share"),
    "identity": (damage.identity, "explained_variance"),
    "norm not folded": (unfolded(4.0), "harmful_mass"),
    "latents twice": (damage.doubled, "twins"),
    "other layer": (foreign("W_enc", "b_enc", "W_dec", "b_dec"), "own_layer_margin"),
}
CASES: dict[str, dict[str, tuple[damage.Change, str]]] = {
    "standard": {
        **_OF_ALL,
        **_OF_RELU,
        "under resid_mid's name": (described(hook_name="blocks.2.hook_resid_mid"), "own_place_ratio"),
        "under the next block's name": (described(hook_name="blocks.3.hook_resid_pre"), "own_layer_margin"),
        "decoder reversed": (scaled("W_dec", -1), "explained_variance"),
        "whole numbers": (weight("W_enc", lambda w, _: (w * 100).to(torch.int8)), ERROR),
        "complex": (weight("W_dec", lambda w, _: w.to(torch.complex64)), ERROR),
        "as topk": (configured(architecture="topk", k=8), ERROR),
        "b_enc missing": (lost("b_enc"), ERROR),
    },
    "gated": {
        "decoder x 0.8": _OF_RELU["decoder x 0.8"],
        "10 % of the encoder permuted": _OF_ALL["10 % of the encoder permuted"],
        "magnitudes x 1.3": (weight("r_mag", lambda w, _: w + 0.26), "relative_reconstruction_bias"),
        "half the gates shut": (partial(damage.half, name="b_gate", value=-100), "reconstruction_bias"),
        "b_mag lost": (scaled("b_mag", 0), "harmful_mass"),
        "r_mag missing": (lost("r_mag"), ERROR),
    },
    "topk": {
        **_OF_ALL,
        **_BIAS,
        "k doubled": (configured(k=2 * damage.K), "relative_reconstruction_bias"),
        "k halved": (configured(k=damage.K // 2), "relative_reconstruction_bias"),
        "as a ReLU": (
            both(configured(architecture="standard"), described(training_architecture="standard")),
            "l0_share",
        ),
        "untrained, tied": (damage.untrained, "harmful_mass"),
        "under attn_out's name": (described(hook_name="blocks.1.hook_attn_out"), "own_place_ratio"),
        "divided by rows that are zero": (both(configured(rescale_acts_by_decoder_norm=True), damage.half), ERROR),
    },
    "batchtopk": {
        **_BIAS,
        "threshold lost": (scaled("threshold", 0), "l0_share"),
        "threshold x 3": (scaled("threshold", 3), "reconstruction_bias"),
        "threshold missing": (lost("threshold"), ERROR),
        "decoder x 1.2": _OF_ALL["decoder x 1.2"],
        "10 % of the encoder permuted": _OF_ALL["10 % of the encoder permuted"],
        "under mlp_out's name": (described(hook_name="blocks.2.hook_mlp_out"), "own_place_ratio"),
        "as a ReLU": (configured(architecture="standard"), ERROR),
    },
    "matryoshka": {
        "decoder x 0.8": _OF_ALL["decoder x 0.8"],
        "half the decoder zero": _OF_ALL["half the decoder zero"],
        "b_dec lost": _BIAS["b_dec lost"],
        "threshold lost": (scaled("threshold", 0), "l0_share"),
        "encoder of the neighbour": (foreign("W_enc", "b_enc"), "harmful_mass"),
        "under mlp_out's name": (described(hook_name="blocks.2.hook_mlp_out"), "explained_variance"),
    },
    "transcoder": {
        **_BIAS,
        "decoder x 0.8": _OF_ALL["decoder x 0.8"],
        "decoder permuted": _OF_ALL["decoder permuted"],
        "10 % of the encoder permuted": _OF_ALL["10 % of the encoder permuted"],
        "threshold lost": (scaled("threshold", 0), "harmful_mass"),
        "writes attn_out": (described(hook_name_out="blocks.1.hook_attn_out"), "explained_variance"),
        "reads the stream": (described(hook_name="blocks.1.hook_resid_mid"), "explained_variance"),
        "other layer": (foreign("W_enc", "b_enc", "W_dec", "b_dec", "threshold"), "own_layer_margin"),
    },
    **({"stories": {**_OF_ALL, **_OF_RELU, **_BIAS}} if "stories" in damage.SOUND else {}),
}
GREEN: dict[str, damage.Change] = {
    "as trained": lambda sound: sound,
    "float16": cast(torch.float16),
    "bfloat16": cast(torch.bfloat16),
    "8 bits": damage.eight_bits,
    "latents in another order": damage.reordered,
    "latents in other units": damage.rescaled,
}
LOST_ANSWERS = ("decoder zero", "decoder permuted")
"""Damage that Lambada sees, at the residual stream."""
CHECK_OF = {measure.name: check.name for check in checks.CHECKS for measure in check.measures}
CHECKS = [name for name in ("ce_loss", "reconstruction", "sparsity", "own_layer") if name in CHECK_OF.values()]


@dataclass(frozen=True)
class Kind:
    """The judge of one architecture, with the cells that are measured together."""

    judge: Judge
    cells: list[tuple[str, str]]

    def result(self, case: str, check: str):
        return self.judge.result((case, check), self.cells)


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """By architecture, a release of the sound SAE in all its variants: sound, damaged, rewritten."""
    made = {}
    with quiet():
        for kind, cases in CASES.items():
            sound = damage.SOUND[kind]()
            folder = tmp_path_factory.mktemp("damage") / kind
            changes = {**{name: change for name, (change, _) in cases.items()}, **GREEN}
            for case, change in changes.items():
                if kind != "topk" or case != "latents in other units":
                    change(sound).write(folder / case)
            made[kind] = _judge(kind, folder)
    return made


def _judge(kind, folder):
    demo, data = damage.DEMO, damage.DATA
    texts = {"model": str(demo.model), "corpus": str(demo.corpus), "lambada": str(demo.lambada)}
    if kind == "stories":
        texts = {"model": str(data / "stories260K"), "corpus": str(data / "stories/eval.jsonl")}
    options = Options(release=str(folder), device="cpu", n_sequences=128, n_context_tokens=damage.CONTEXT, **texts)
    asked = settle(options)
    judge = Judge(asked, LocalExecutor(asked.plan))
    judge.executor.diagnose = lambda *_, **__: None  # every red SAE would be diagnosed, in longer than it is measured
    wanted = {case: red for case, (_, red) in CASES[kind].items()}
    cells = [
        (case, check)
        for case, check in asked.limits
        if check in CHECKS and (check != "own_layer" or CHECK_OF.get(wanted.get(case, "")) == check or case in GREEN)
    ]
    return Kind(judge, cells)


def _is_caught(case, red):
    """Whether the measure *red* is there; that all is explained fails only in the check reconstruction."""
    return red == ERROR or (red in CHECK_OF and (case != "identity" or "reconstruction" in CHECKS))


ALL = [
    pytest.param(
        *(kind, case, red),
        marks=[] if _is_caught(case, red) else [pytest.mark.xfail(strict=True, reason=f"needs {red}")],
    )
    for kind, of_kind in CASES.items()
    for case, (_, red) in of_kind.items()
]


def test_there_are_enough_of_them():
    """Sixty and more, over three places of models and six architectures."""
    assert len(ALL) >= 60
    assert len(CASES) >= 6


@pytest.mark.parametrize(("kind", "case", "red"), ALL)
def test_damage_is_red(judges, kind, case, red):
    """Without Lambada, and by the measure that is named."""
    result = judges[kind].result(case, "ce_loss" if red == ERROR else CHECK_OF[red])
    assert result.outcome == ("error" if red == ERROR else "failed"), result.reason
    limits = [(result.limit, result.outcome), *((each.limit, each.outcome) for each in result.other_limits)]
    broken = [limit.measure for limit, outcome in limits if outcome == "failed"]
    assert red == ERROR or red in broken or red in result.reason, (broken, result.reason)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("case", GREEN)
def test_what_is_as_good_as_before_is_green(judges, kind, case):
    """Rounded, in another order or in other units, an SAE is the same: no check fails."""
    if (kind, case) == ("topk", "latents in other units"):
        pytest.skip("TopK compares its latents")
    for check in CHECKS:
        result = judges[kind].result(case, check)
        assert result.outcome in ("passed", "inconclusive"), (check, result.reason)


@pytest.mark.parametrize("case", LOST_ANSWERS)
def test_lambada_is_red_too(judges, case):
    """With Lambada, what costs the answers is red there as well."""
    result = judges["standard"].judge.result((case, "lambada"))
    assert result.outcome == "failed", result.reason
