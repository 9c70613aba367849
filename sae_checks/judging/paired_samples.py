"""
The sample behind a limited measure, as it outlives its run: what a later run is paired with.

Two columns for every kind of sample: sum(top) / sum(bottom) is the measure. What is no plain ratio is linearised once,
at the estimate from all that were measured, for a comparison begins when both runs are over. Numbers are float32, in
this run as in the record, so that the same values are equal whichever way they came.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_checks import checks, errors
from sae_checks.judging.estimates import Estimate, Reading
from sae_checks.judging.limits import Limit
from sae_checks.judging.samples import Answers, Ratio, Sample
from sae_checks.losses import Floats

_FLOATS, _ANSWERS = "<f4", "<i1"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRatio:
    """A measure as a ratio of sums over sequences or items, in the plan's order."""

    measure: str
    version: int
    """of the check's measures, see `checks.Check.version`."""
    fingerprint: str
    """of the sequences or items, as in `provenance.CorpusFacts`."""
    top: tuple[float, ...]
    bottom: tuple[float, ...]
    best: float | None = None
    """what an exact reconstruction gives; None: there is no such number."""

    def sample(self, n: int) -> Ratio:
        """The first *n* of it."""
        top, bottom = (np.array(column[:n], dtype=np.float64) for column in (self.top, self.bottom))
        return Ratio(top=top, bottom=bottom, has_positive_bottoms=bool((bottom > 0).all()))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswers:
    """Right and wrong, item by item in the plan's order: -1, 0 or 1."""

    measure: str
    version: int
    fingerprint: str
    top: tuple[int, ...]
    n_listed: int | None
    """items of the whole list; None: unknown."""


Kept = KeptRatio | KeptAnswers


def keep(readings: Iterable[Reading], limit: Limit | None, fingerprint: str) -> Kept | None:
    """The sample of what *limit* limits, on the tokens of *fingerprint*; None: it has none, or was not measured."""
    limited = next((r for r in readings if limit is not None and r.measure == limit.measure), None)
    if limit is None or not isinstance(limited, Estimate) or limited.sample is None:
        return None
    if limited.stand_in is not None:  # a difference of what stands in would be in other units than the measure
        return None
    sample = limited.sample
    version = checks.named(limit.check).version
    if isinstance(sample, Answers):
        return KeptAnswers(
            measure=limit.measure,
            version=version,
            fingerprint=fingerprint,
            top=tuple(sample.values.tolist()),
            n_listed=sample.n_listed,
        )
    with np.errstate(over="ignore"):  # seen below
        top, bottom = (column.astype(_FLOATS) for column in _columns(sample))
    if not (np.isfinite(top).all() and np.isfinite(bottom).all() and math.fsum(bottom) > 0):
        return None
    return KeptRatio(
        measure=limit.measure,
        version=version,
        fingerprint=fingerprint,
        top=tuple(top.tolist()),
        bottom=tuple(bottom.tolist()),
        best=sample.best if sample.best is None or not sample.is_log else math.exp(sample.best),
    )


def _columns(sample: Sample) -> tuple[Floats, Floats]:
    top, bottom = sample.upto(sample.n)
    if not sample.is_log:
        return top, bottom
    mean = math.fsum(top) / math.fsum(bottom)
    return np.exp(mean) * (bottom + top - mean * bottom), bottom  # the delta method, back from the logarithm


def to_json(kept: Kept) -> dict[str, Any]:  # JSON's own border
    head = {"measure": kept.measure, "version": kept.version, "fingerprint": kept.fingerprint}
    if isinstance(kept, KeptAnswers):
        return {**head, "answers": _packed(kept.top, _ANSWERS), "n_listed": kept.n_listed}
    return {**head, "top": _packed(kept.top, _FLOATS), "bottom": _packed(kept.bottom, _FLOATS), "best": kept.best}


def from_json(row: dict[str, Any]) -> Kept:
    """
    What `to_json` made, by its schema.

    Raises:
        RecordError: the columns are not what they should be.
    """
    measure = row["measure"]
    head = {name: row[name] for name in ("measure", "version", "fingerprint")}
    if "answers" in row:
        answers = _unpacked(row["answers"], _ANSWERS)
        if not set(answers) <= {-1, 0, 1}:
            raise errors.bad_record("record", f"an answer of the sample of {measure} is none of -1, 0 and 1")
        return KeptAnswers(**head, top=answers, n_listed=row["n_listed"])
    top, bottom = (_unpacked(row[name], _FLOATS) for name in ("top", "bottom"))
    if len(top) != len(bottom) or not all(map(math.isfinite, (*top, *bottom))) or math.fsum(bottom) <= 0:
        raise errors.bad_record("record", f"the sample of {measure} is not a ratio of sums")
    return KeptRatio(**head, top=top, bottom=bottom, best=row["best"])


def _packed(values: tuple[float, ...], dtype: str) -> str:
    return base64.b64encode(np.array(values, dtype=dtype).tobytes()).decode("ascii")


def _unpacked(text: str, dtype: str) -> tuple[Any, ...]:  # floats, or integers
    try:
        return tuple(np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).tolist())
    except (binascii.Error, ValueError):
        raise errors.bad_record("record", "a column of a sample is not base64 of numbers") from None
