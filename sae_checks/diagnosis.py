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
_TIE = 0.05
"""shares that differ by less count as equal: the simpler cause is named."""
_LEAST_FIT = 0.5
"""explained variance that a corrected reconstruction must reach for the correction to be a cause."""
_GOOD_FIT = 0.9
"""explained variance from which an SAE that costs nothing has nothing to give back."""
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
    b_dec_is_zero: bool | None = None
    """null: it has none."""
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

    recovered: float
    """share of the loss, or of the error, that undoing it gives back."""
    text: str


def conclusion(found: Diagnosis, hook: str) -> str:
    """One sentence that names the most likely cause in *found*, of an SAE at *hook*."""
    causes = list(_causes(found, hook))
    named = [cause for cause in causes if cause.recovered >= LEAST_SHARE]
    if named:
        most = max(cause.recovered for cause in named)
        return next(cause.text for cause in named if cause.recovered >= most - _TIE)
    if found.copy_of:
        return f"the same weights as {', '.join(found.copy_of)}; {_at_home(found, hook)}"
    best = found.best_explained_variance
    if best is not None and best < _LEAST_FIT:
        others = f", and at none of {found.n_places} other hooks more" if found.n_places else ""
        return f"even with the best length and bias it explains {_n(best)} of the variance of {hook}{others}"
    nats = found.ce_increase_nats_per_token
    if nats is not None and nats < LEAST_NATS:
        explained = found.explained_variance
        shown = "" if explained is None else f" and it explains {_n(explained)}"
        return f"within its training context nothing is wrong: the splice costs {_n(nats)} nats/token there{shown}"
    tried, least = ", ".join(_tried(found)), _percent(LEAST_SHARE)
    return f"no single cause: {tried} each give back less than {least} of the loss{_shares(found)}"


def _causes(found: Diagnosis, hook: str) -> Iterator[_Cause]:
    """The causes that *found* measured, the simplest first."""
    if found.place is not None:
        yield _Cause(recovered=_recovered(found, found.place.corrected), text=_place(found, found.place, hook))
    yield from _corrections(found)
    if found.without_worst_latents is not None:
        back, worst = _recovered(found, found.without_worst_latents), found.worst_latents
        shown = ", ".join(map(str, worst[:_N_SHOWN])) + (", ..." if len(worst) > _N_SHOWN else "")
        text = f"few latents do it: without {len(worst)} ({shown}) {_percent(back)} of the loss is gone"
        yield _Cause(recovered=back, text=text)


def _corrections(found: Diagnosis) -> Iterator[_Cause]:
    """The causes that a corrected reconstruction shows."""
    for corrected, text in (
        (found.with_length, _length(found)),
        (_better(found.with_bias, found.with_b_dec), _bias(found)),
        (found.with_norm, _norm(found)),
        (found.with_length_and_bias, f"the reconstruction is {_too_long(found)}, and a bias is wrong"),
    ):
        if corrected is not None and corrected.explained_variance >= _LEAST_FIT:
            back = _recovered(found, corrected)
            yield _Cause(recovered=back, text=f"{_variance(found, corrected)}, {text} ({_back(back)})")


def _variance(found: Diagnosis, corrected: Corrected) -> str:
    before = "?" if found.explained_variance is None else _n(found.explained_variance)
    return f"explained variance {_n(corrected.explained_variance)} -> {before}"


def _back(share: float) -> str:
    return f"correcting that gives back {_percent(share)} of the loss"


def _length(found: Diagnosis) -> str:
    norm, ratio = found.norm_factor, found.length_ratio
    text = f"the reconstruction is {_too_long(found)}: look at how it was loaded"
    if norm is None or ratio is None or ratio <= 0:
        return text
    for factor, what in ((1 / norm, "is not folded into its decoder"), (norm, "is folded into its decoder twice")):
        if abs(ratio / factor - 1) < _AS_THE_NORM and abs(norm - 1) > _AS_THE_NORM:
            return f"{text}; the activation's norm, {_n(norm)} times the root of its width, {what}"
    return text


def _too_long(found: Diagnosis) -> str:
    ratio = found.length_ratio or 1.0
    return f"{ratio:.2g} times too long" if ratio >= 1 else f"{1 / ratio:.2g} times too short"


def _bias(found: Diagnosis) -> str:
    size = "" if found.relative_bias is None else f"the mean error is {_n(found.relative_bias)} standard deviations"
    if found.b_dec_is_zero:
        return f"a bias is lost: b_dec is zero, {size}"
    if found.with_b_dec is not None and found.with_b_dec == _better(found.with_bias, found.with_b_dec):
        return f"a bias is wrong: another b_dec fits, {size}"
    return f"a bias is lost or wrong: {size}"


def _norm(found: Diagnosis) -> str:
    what = "is folded into its weights twice" if found.norm_is_folded_twice else "is not folded into its weights"
    return f"the activation's norm, {_n(found.norm_factor or 0)} times the root of its width, {what}"


def _place(found: Diagnosis, place: Place, hook: str) -> str:
    here = "?" if found.best_explained_variance is None else _n(found.best_explained_variance)
    there = _n(place.best_explained_variance)
    if found.swapped_with is not None:
        return (
            f"swapped with {found.swapped_with}: it explains {place.hook} ({there}) better than its own hook ({here})"
        )
    whose = f"it has the weights of {', '.join(found.copy_of)}" if found.copy_of else "it is another hook's SAE"
    return f"it belongs to {place.hook}, which it explains ({there}) better than {hook} ({here}): {whose}"


def _at_home(found: Diagnosis, hook: str) -> str:
    explained = "?" if found.explained_variance is None else _n(found.explained_variance)
    return f"this one is at home at {hook}, of which it explains {explained}"


def _tried(found: Diagnosis) -> list[str]:
    tried = ["length", "bias"]
    tried += ["other hooks"] if found.n_places else []
    return [*tried, *(["single latents"] if found.without_worst_latents is not None else [])]


def _shares(found: Diagnosis) -> str:
    """Where the loss is, if much of it is in few places."""
    shares = (
        (found.first_positions_share, "at the first 4 positions"),
        (found.top_tokens_share, "in 1 % of the tokens"),
    )
    shown = [f"{_percent(share)} of it is {where}" for share, where in shares if share is not None and share >= 0.5]
    return f"; {', '.join(shown)}" if shown else ""


def _recovered(found: Diagnosis, corrected: Corrected) -> float:
    """Share of the loss that is gone, or of the error where there is no loss to speak of."""
    nats, explained = found.ce_increase_nats_per_token, found.explained_variance
    if corrected.recovered_loss is not None and nats is not None and nats >= LEAST_NATS:
        return corrected.recovered_loss
    if explained is None or explained >= _GOOD_FIT:
        return 0.0
    return 1 - (1 - corrected.explained_variance) / (1 - explained)


def _better(one: Corrected | None, other: Corrected | None) -> Corrected | None:
    known = [each for each in (one, other) if each is not None]
    return min(known, key=lambda each: each.ce_increase_nats_per_token, default=None)


def _n(value: float) -> str:
    return f"{value:.2g}"


def _percent(share: float) -> str:
    return f"{100 * min(share, 1):.0f} %"
