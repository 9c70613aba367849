"""
What is wrong with an SAE whose checks are red, as measured by changing its reconstruction.

Causes are ranked by the share of the loss that undoing them gives back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sae_checks.fields import Count

LEAST_SHARE = 0.2
"""share of the loss that a cause must give back to be named."""
LEAST_NATS = 0.005
"""CE increase in nats/token below which causes are ranked by the error that they give back instead."""
_MUCH = 0.5
"""share of the loss from which it is said where it is."""
_TIE = 0.85
"""share of the best cause's share from which a simpler cause is named instead."""
_LEAST_FIT = 0.5
"""explained variance that a corrected reconstruction must reach for the correction to be a cause."""
_GOOD_FIT = 0.9
"""explained variance from which an SAE that costs nothing has nothing to give back."""
_SHRUNKEN = 0.8
"""length ratio down to which L1 penalties of training were seen to shrink; sound SAEs with one had 0.83 to 0.95."""
_AS_THE_NORM = 0.15
"""relative difference up to which a length is that of the activation's norm."""
_N_SHOWN = 3
"""latents that a sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """The SAE with one correction."""

    explained_variance: float
    ce_increase_nats_per_token: float
    recovered_loss: float | None
    """share of the CE increase that is gone, at most 1 or a little more; negative: it costs more. Null: there is no
    CE increase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The SAE at another hook than its own."""

    hook: str
    """the hook that it would write."""
    best_explained_variance: float
    """explained variance after the best scalar factor and the best constant."""
    corrected: Corrected


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSae:
    """The next SAE of the release, on clean activations."""

    sae_id: str
    explained_variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The most likely cause of an SAE's loss, and the measurements behind it."""

    sentence: str
    """the conclusion, shown in terminal, JUnit, summary and page."""
    why_none: str | None = None
    """why nothing could be measured; null: it could."""
    n_sequences: Count = 0
    """sequences, the first of the text, cut to the training context."""
    n_tokens: Count = 0
    """replaced tokens, without attention sinks, that the explained variances are of."""
    explained_variance: float | None = None
    best_explained_variance: float | None = None
    """explained variance after the best scalar factor and the best constant."""
    ce_increase_nats_per_token: float | None = None
    length_ratio: float | None = None
    """how many times too long the reconstruction is: its variance over its covariance with the activation."""
    with_length: Corrected | None = None
    """the part of its latents divided by *length_ratio*, or all of it, whichever explains more."""
    relative_bias: float | None = None
    """norm of the mean error, in standard deviations of the activation."""
    with_bias: Corrected | None = None
    """the mean error added."""
    with_b_dec: Corrected | None = None
    """b_dec replaced by a better one, found by descent; null: none is, or b_dec is not subtracted from the input."""
    zero_biases: tuple[str, ...] = ()
    """names of the SAE's biases that are zero throughout."""
    b_dec_of: tuple[str, ...] = ()
    """ids of SAEs of the release with the same b_dec, as far as they were compared; not if it is zero."""
    with_length_and_bias: Corrected | None = None
    norm_factor: float | None = None
    """mean norm of the SAE's input over the root of its width, which training may divide by."""
    with_norm: Corrected | None = None
    """its input divided by *norm_factor*, or multiplied, and its output the other way; null: that explains less."""
    norm_is_folded_twice: bool | None = None
    """whether *with_norm* multiplies."""
    worst_latents: tuple[Count, ...] = ()
    """latents without which the squared error falls most; at most ten, the worst first."""
    without_worst_latents: Corrected | None = None
    harmful_mass: float | None = None
    """share of the latents' effects on the squared error that make it worse; null: it is no sum of latents."""
    place: Place | None = None
    """the hook that it explains clearly better than its own."""
    n_places: Count = 0
    """number of other hooks that were tried."""
    home_of: str | None = None
    """id of the SAE whose own hook *place* is."""
    swapped_with: str | None = None
    """id of the SAE at *place* that explains this SAE's hook better than its own."""
    copy_of: tuple[str, ...] = ()
    """ids of SAEs with the same weights, as far as they were compared."""
    worse_next_sae: NextSae | None = None
    """null: it explains 0.9 of its own hook, or leaves less than four times as much unexplained as this one."""
    first_positions_share: float | None = None
    """share of the CE increase in predictions at the first positions, 0 to 3."""
    top_tokens_share: float | None = None
    """share of the CE increase in the costliest 1 % of the tokens."""


def not_diagnosed(why: str) -> Diagnosis:
    """The diagnosis of an SAE for which nothing could be measured."""
    return Diagnosis(sentence=f"no diagnosis: {why}", why_none=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """A cause that may explain the loss."""

    text: str
    detail: str
    corrected: Corrected


def conclusion(found: Diagnosis, hook: str) -> str:
    """One sentence that names the most likely cause in *found*, of an SAE at *hook*."""
    named = [(share, each) for each in _causes(found, hook) if (share := _recovered(found, each)) >= LEAST_SHARE]
    if named:
        most = max(share for share, _ in named)
        share, cause = next((share, each) for share, each in named if share >= _TIE * most)
        return f"{cause.text} ({_percent(share)} of the {_ranked_by(found)}): {cause.detail}"
    if found.copy_of:
        return f"{', '.join(found.copy_of)} has the same weights; at {hook} they explain {_r(found.explained_variance)}"
    if found.best_explained_variance is not None and found.best_explained_variance < _LEAST_FIT:
        others = f", and it fits none of {found.n_places} other hooks clearly better" if found.n_places else ""
        fit = _r(found.best_explained_variance)
        return f"even with the best length and bias it explains {fit} of the variance of {hook}{others}"
    if (other := found.worse_next_sae) is not None:
        explained = _r(other.explained_variance)
        return f"red because of the next SAE, {other.sae_id} (explained variance {explained})"
    nats = found.ce_increase_nats_per_token
    if nats is not None and nats < LEAST_NATS:
        return (
            f"nothing is wrong within the training context: the splice costs {nats:.2g} nats/token there, explained "
            f"variance is {_r(found.explained_variance)}"
        )
    tried = [
        "length",
        "bias",
        *(["place"] if found.n_places else []),
        *(["single latents"] if _has_latents(found) else []),
    ]
    least = _percent(LEAST_SHARE)
    return f"no single cause: {', '.join(tried)} each give back less than {least} of the loss{_shares(found)}"


def _causes(found: Diagnosis, hook: str) -> Iterator[_Cause]:
    """The causes that *found* measured, the simplest first."""
    if found.place is not None:
        yield _of_place(found, found.place, hook)
    for corrected, (text, detail) in (
        (found.with_norm, _norm(found)),
        (found.with_length, _length(found)),
        (_better(found.with_bias, found.with_b_dec), _bias(found)),
        (found.with_length_and_bias, (f"{_too_long(found)} and a bias is wrong", _mean_error(found))),
    ):
        if corrected is not None and corrected.explained_variance >= _LEAST_FIT:
            variances = f"explained variance {_r(corrected.explained_variance)} -> {_r(found.explained_variance)}"
            yield _Cause(text=f"{variances}, {text}", detail=detail, corrected=corrected)
    if found.without_worst_latents is not None:
        worst = found.worst_latents
        shown = ", ".join(map(str, worst[:_N_SHOWN])) + (", ..." if len(worst) > _N_SHOWN else "")
        detail = f"without {shown} the rest is better"
        yield _Cause(text=f"{len(worst)} latents do harm", detail=detail, corrected=found.without_worst_latents)


def _of_place(found: Diagnosis, place: Place, hook: str) -> _Cause:
    here, there = _r(found.best_explained_variance), _r(place.best_explained_variance)
    detail = f"it explains {place.hook} ({there}) better than {hook} ({here})"
    text = f"it belongs to {place.hook}"
    if found.swapped_with is not None:
        text = f"swapped with {found.swapped_with}"
    elif found.copy_of:
        text = f"it has the weights of {', '.join(found.copy_of)}"
    return _Cause(text=text, detail=detail, corrected=place.corrected)


def _length(found: Diagnosis) -> tuple[str, str]:
    """The cause, and its detail."""
    norm, ratio = found.norm_factor, found.length_ratio
    if norm is not None and ratio is not None and ratio > 0 and norm > 0 and abs(norm - 1) > _AS_THE_NORM:
        for factor, what in ((1 / norm, "is not folded into"), (norm, "is folded twice into")):
            if abs(ratio / factor - 1) < _AS_THE_NORM:
                return _too_long(
                    found
                ), f"the activation's norm, {norm:.2g} times the root of its width, {what} the decoder"
    if ratio is not None and _SHRUNKEN <= ratio < 1:
        return _too_long(found), "an L1 penalty shrinks as much"
    return _too_long(found), "look at how it was loaded"


def _too_long(found: Diagnosis) -> str:
    ratio = found.length_ratio or 1.0
    if ratio < 0:
        return "the reconstruction has the wrong sign"
    return f"the reconstruction is {max(ratio, 1 / ratio):.2g} times too {'long' if ratio >= 1 else 'short'}"


def _bias(found: Diagnosis) -> tuple[str, str]:
    """The cause, and its detail."""
    size = _mean_error(found)
    if found.zero_biases:
        return "a bias is lost", f"{' and '.join(found.zero_biases)} is zero, {size}"
    if found.b_dec_of:
        return "a bias is wrong", f"b_dec is that of {', '.join(found.b_dec_of)}, {size}"
    return "a bias is wrong", f"{'another b_dec makes up for it, ' if found.with_b_dec is not None else ''}{size}"


def _mean_error(found: Diagnosis) -> str:
    return f"the mean error is {found.relative_bias or 0:.2f} standard deviations"


def _norm(found: Diagnosis) -> tuple[str, str]:
    """The cause, and its detail."""
    what = "folded twice" if found.norm_is_folded_twice else "not folded"
    return (
        f"the activation's norm is {what} into the weights",
        f"it is {found.norm_factor or 0:.2g} times the root of its width",
    )


def _shares(found: Diagnosis) -> str:
    """Where the loss is, if much of it is in few places."""
    shares = (
        (found.first_positions_share, "at the first 4 positions"),
        (found.top_tokens_share, "in 1 % of the tokens"),
    )
    shown = [f"{_percent(share)} of it is {where}" for share, where in shares if share is not None and share >= _MUCH]
    return f"; {', '.join(shown)}" if shown else ""


def _has_latents(found: Diagnosis) -> bool:
    return found.without_worst_latents is not None


def _ranked_by(found: Diagnosis) -> str:
    """What causes give back: the loss, or the error where there is no loss to speak of."""
    nats = found.ce_increase_nats_per_token
    return "loss" if nats is not None and nats >= LEAST_NATS else "error"


def _recovered(found: Diagnosis, cause: _Cause) -> float:
    """The share of the loss or the error that is gone without *cause*."""
    if _ranked_by(found) == "loss":
        return cause.corrected.recovered_loss or 0.0
    if found.explained_variance is None or found.explained_variance >= _GOOD_FIT:
        return 0.0
    return 1 - (1 - cause.corrected.explained_variance) / (1 - found.explained_variance)


def _better(one: Corrected | None, other: Corrected | None) -> Corrected | None:
    known = [each for each in (one, other) if each is not None]
    return min(known, key=lambda each: each.ce_increase_nats_per_token, default=None)


def _r(explained_variance: float | None) -> str:
    return "?" if explained_variance is None else f"{explained_variance:.2f}"


def _percent(share: float) -> str:
    return f"{100 * min(share, 1):.0f} %"
