"""
Runs -> series of values of one measure, each measured in the same way.

The key of a series holds everything that decides what a value means: SAE, measure and its version, the language model's
weights, the kind of device, and the configuration. It does not hold the SAE's weights: a series shows how they change.
Nor does it hold the seed: runs on other draws of the same text are one series. A run with another key starts a new one.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sae_checks import checks
from sae_checks.comparing.history.runs import Run
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.limits import Limit
from sae_checks.judging.verdict import Outcome
from sae_checks.record.results import Record, Result
from sae_checks.release.natural_order import NaturalKey, natural_key

_OF_OTHER_SAES = {c.name for c in (checks.PROPAGATION, checks.NEXT_SAE, checks.LAST_SAE, checks.DISTINCT)}
_N_DIGITS = 12
"""hexadecimal digits of a hash in a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What two values must have in common to be in one series."""

    sae_id: str
    check: str
    measure: str
    version: str
    """of the check's measures; if the record does not say it, the version of sae-checks that wrote the record."""
    model: str
    """hash of the language model's weights."""
    device: str
    """cpu, cuda or mps."""
    config: tuple[tuple[str, str], ...]
    """(name, value) of everything else: corpus, conventions, hook, ..."""

    @property
    def config_hash(self) -> str:
        return _hash(self.config)

    def changes(self, to: Key) -> tuple[str, ...]:
        """The differences to the key *to*, in words."""
        named = (
            ("version of the measures", self.version, to.version),
            ("language model (hash of its weights)", self.model, to.model),
            ("device", self.device, to.device),
        )
        before, after = dict(self.config), dict(to.config)
        in_config = ((what, before.get(what, "none"), after.get(what, "none")) for what in {**before, **after})
        return tuple(f"{what}: {was} -> {now}" for what, was, now in (*named, *in_config) if was != now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The value of one run in a series."""

    run_id: str
    started: datetime
    revision: str | None
    value: float
    low: float | None
    high: float | None
    """of the interval that the verdict rests on; None: there is no bound on this side."""
    n: int
    """sequences or items."""
    outcome: Outcome
    limit: Limit | None
    """of this measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The values with one key."""

    key: Key
    points: tuple[Point, ...]
    """by time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """All series of one measure of one SAE or stack."""

    sae_id: str
    check: str
    measure: str
    unit: str
    series: tuple[Series, ...]
    """by the time of their first run."""


def lines(
    runs: Sequence[Run], *, measures: Sequence[str] = (), sae_ids: Sequence[str] = (), every: bool = False
) -> tuple[Line, ...]:
    """
    The lines of *runs*, in the order of the runs' results.

    Args:
        runs: runs of one release.
        measures: only these measures; empty: the limited ones, and the last of a check without a limit.
        sae_ids: only SAEs and stacks that match one of these patterns; empty: all.
        every: all measures.
    """
    found: dict[tuple[str, str, str], dict[Key, list[Point]]] = {}
    units: dict[tuple[str, str], str] = {}
    for run in sorted(runs, key=lambda run: (when(run.record.started), run.run_id)):
        for result in run.record.results:
            if sae_ids and not any(fnmatch.fnmatchcase(result.sae_id, pattern) for pattern in sae_ids):
                continue
            for estimate in _chosen(result, measures, every=every):
                key = key_of(result, estimate, run.record)
                line = found.setdefault((key.sae_id, key.check, key.measure), {})
                line.setdefault(key, []).append(_point(run, result, estimate))
                units[key.check, key.measure] = estimate.unit
    return tuple(
        Line(
            sae_id=sae_id,
            check=check,
            measure=measure,
            unit=units[check, measure],
            series=tuple(Series(key=key, points=tuple(points)) for key, points in of_line.items()),
        )
        for (sae_id, check, measure), of_line in found.items()
    )


def place(sae_id: str, check: str) -> tuple[bool, NaturalKey]:
    """The place of *sae_id*, which *check* is of, in a list: SAEs in natural order, then stacks."""
    return checks.named(check).of == "stack", natural_key(sae_id)


def measures_in(runs: Sequence[Run]) -> tuple[str, ...]:
    """The names of all measures of *runs*."""
    return tuple(dict.fromkeys(e.measure for run in runs for r in run.record.results for e in r.estimates))


def when(started: str) -> datetime:
    """*started*, the text in a record, as a time in UTC; the earliest time if it is none."""
    try:
        found = datetime.fromisoformat(started)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def key_of(result: Result, estimate: Estimate, of: Record) -> Key:
    """The key of *estimate*, which belongs to *result* in the record *of*."""
    model = None if result.provenance is None else result.provenance.model
    return Key(
        sae_id=result.sae_id,
        check=result.check,
        measure=estimate.measure,
        version=_version(result, of),
        model="none" if model is None else _hash(sorted(file.sha256 for file in model.weights)),
        device="none" if model is None else model.device.partition(":")[0],
        config=tuple(_config(result, of)),
    )


def _chosen(result: Result, measures: Sequence[str], *, every: bool) -> Iterator[Estimate]:
    if result.check == checks.NO_REGRESSION.name:  # WHY: it measures two runs, not one
        return
    limit = result.main_limit
    own = checks.named(result.check).measures[-1].name if limit is None else limit.measure
    for estimate in result.estimates:
        if every or estimate.measure in (measures or (own,)):
            yield estimate


def _point(run: Run, result: Result, estimate: Estimate) -> Point:
    limit = result.limit_on(estimate.measure)
    shown = result.judged_on(estimate.measure) or estimate
    return Point(
        run_id=run.run_id,
        started=when(run.record.started),
        revision=run.record.release.revision,
        value=shown.value,
        low=shown.low,
        high=shown.high,
        n=shown.n,
        outcome=result.outcome,
        limit=limit,
    )


def _version(result: Result, of: Record) -> str:
    for other in (result, *of.results):
        if other.check == result.check and other.paired_sample is not None:
            return str(other.paired_sample.measures_version)
    own = next((package.version for package in of.software if package.name == "sae-checks"), "unknown")
    return f"of sae-checks {own}"


def _config(result: Result, of: Record) -> Iterator[tuple[str, str]]:
    yield "rule for special tokens", str(dict(of.options).get("special_tokens"))
    if result.provenance is not None:
        model, corpus, sae = result.provenance.model, result.provenance.corpus, result.provenance.sae
        yield "corpus", corpus.kind
        # WHY the name of a text that was read in part: the hash of its rows depends on the seed
        yield "text", corpus.source if corpus.n_listed is None else f"sha256 {corpus.sha256[:_N_DIGITS]}"
        yield "sequences", str(corpus.n_sequences)
        if corpus.kind == "text":  # WHY: the longest passage or query of a draw depends on the seed
            yield "tokens per sequence", str(corpus.n_context_tokens)
        yield "BOS before every sequence", str(corpus.prepend_bos)
        yield "backend", " ".join((model.backend, *model.processing))
        yield "dtype", model.dtype
        if sae is not None:
            hooks = (sae.hook, sae.hook_out, *(() if sae.head is None else (f"head {sae.head}",)))
            yield "hook", " ".join(dict.fromkeys(hooks))
            yield "training context", str(sae.n_training_context_tokens)
    if result.stack_steps:
        yield "SAEs of the stack", ", ".join(step.sae_id for step in result.stack_steps)
    if result.check in _OF_OTHER_SAES:
        yield "SAEs of the release", ", ".join(of.release.sae_ids)
    if result.check == checks.USABLE_CONTEXT.name:  # WHY: it is the longest context within that limit
        within = (r.main_limit for r in of.results if (r.sae_id, r.check) == (result.sae_id, checks.CE_LOSS.name))
        yield "limit of ce_loss", str(next(within, None))
    if result.check == checks.GOLDEN.name and result.limit is not None:  # WHY: the prompts are not in the fingerprint
        yield "golden prompts", result.limit.source


def _hash(of: object) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:_N_DIGITS]
