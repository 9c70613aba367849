"""
A run -> proposed limits as TOML for `thresholds`, for a person to review.

A limit lies a margin beyond the far end of a widened interval. The interval allows for other texts of the same kind,
the margin for other devices and versions. The far end is at least so far that the verdict's own bounds would pass. A
check that failed gets its limit as a comment, since a person decides whether it may pass. A check without a verdict
gets the reason as a comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np

from sae_checks import checks, errors
from sae_checks.comparing import resampled_error_rates
from sae_checks.comparing.resampled_error_rates import ErrorRates
from sae_checks.judging import bounds, sequential, verdict
from sae_checks.judging.bounds import Moments
from sae_checks.judging.budget import ALPHA, N_LEAST, Budget
from sae_checks.judging.estimates import Estimate, t_quantile
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedRatio
from sae_checks.judging.verdict import JudgedLimit
from sae_checks.record.results import Record, Result

WIDENING = 3.0
"""Half-widths of the 95 % interval between the value and the far end. WHY three: a pass needs about three standard
errors between value and limit, and the value of another sample is within about three of this one."""
MARGIN_SHARE = 0.10
MARGIN_LEAST = {"nats/token": 0.005, "fraction": 0.005}
"""By unit. WHY: another tokenisation of the same texts changes a loss by about 0.005."""

_MOVED = (
    "it depends on the limit of ce_loss, which changes here; run again with this file as --sae-thresholds and "
    "-k usable_context"
)
_RULE = f"""\
limit = far end + margin, away from the value, rounded away from it to three digits
  far end  {WIDENING:g} half-widths of the 95 % interval from the value, and at least where n sequences can pass
  margin   {MARGIN_SHARE:.0%} of the value (of a fraction: of its distance from 0 or 1, whichever is nearer),
           at least {", ".join(f"{least:g} for {unit}" for unit, least in MARGIN_LEAST.items())}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The proposed limit of one measure of a result, or the reason why there is none."""

    result: Result
    of: JudgedLimit | None
    """the present limit and its verdict; None: there is none."""
    limit: Limit | None
    why_none: str
    """empty with a limit."""
    rates: ErrorRates | None = None
    """of verdicts on resampled values at the limit; None: there are no values to resample."""

    @property
    def is_written(self) -> bool:
        """Whether the file has the limit as a table and not as a comment."""
        return self.limit is not None and self.of is not None and self.of.outcome == "passed"


def propose(result: Result, of: JudgedLimit | None, *, date: str, n_checks: int) -> Proposal:
    """
    Propose a limit that allows the measured value, its interval and a margin.

    Args:
        result: of a check.
        of: one of its limits, and the verdict by it alone; None: it has none.
        date: of the run, for the limit's source.
        n_checks: checks of the run, which share the probability of a false failure.
    """

    def none(why: str) -> Proposal:
        return Proposal(result=result, of=of, limit=None, why_none=why)

    current = None if of is None else of.limit
    measured = None if current is None else next((e for e in result.estimates if e.measure == current.measure), None)
    if of is None or of.outcome not in ("passed", "failed") or current is None or measured is None:
        outcome, reason = (result.outcome, result.reason) if of is None else (of.outcome, of.reason)
        return none(f"{outcome.replace('_', ' ')}: {reason}")
    tested = of.decision is not None and of.decision.measure == measured.measure
    skewness = of.decision.skewness if tested and of.decision is not None else 0.0
    plain = replace(current, floor=None)
    value = _far_enough(measured, plain, _to_pass(measured, result, plain, skewness))
    if not math.isfinite(value):
        return none("the limit would not be finite")
    numbers = f"{measured.value:.4g} [{measured.low:.4g}, {measured.high:.4g}], n = {measured.n}"
    failed = f"; it FAILED {current} then" if of.outcome == "failed" else ""
    limit = Limit(
        check=result.check,
        measure=measured.measure,
        kind=current.kind,
        value=value,
        unit=measured.unit,
        source=f"calibrated {date}, not reviewed: {numbers}, margin {_margin(measured):.4g}{failed}",
        where="",
        worst=current.worst,
    )
    judged = verdict.judge(result.estimates, limit, _budget(measured))
    if judged.outcome != "passed":  # WHY: the limit of a large drop in accuracy may leave no room to exceed it
        return none(f"by {limit} it would be {judged.outcome.replace('_', ' ')}: {judged.reason}")
    rates = None
    if (sample := result.paired_sample) is not None and sample.measure == limit.measure and sample.n >= N_LEAST:
        n = sample.n
        rates = resampled_error_rates.rates_at_limit(sample, limit, Budget(n_planned=n, n_most=n, n_checks=n_checks))
    return Proposal(result=result, of=of, limit=limit, why_none="", rates=rates)


def propose_all(run: Record) -> tuple[Proposal, ...]:
    """
    Propose a limit for every limited measure of every check of *run* that is not exact, in the order of its results.

    `usable_context` depends on the limit of ce_loss. If that changes, usable_context gets no limit.
    """
    judged = [
        (result, of) for result in run.results if _has_limit(result.check) for of in (result.judged_limits or (None,))
    ]
    found = [propose(result, of, date=run.started[:10], n_checks=len(judged)) for result, of in judged]
    moved = {p.result.sae_id for p in found if p.result.check == checks.CE_LOSS.name and p.is_written and _moves(p)}
    return tuple(
        Proposal(result=p.result, of=p.of, limit=None, why_none=_MOVED)
        if p.result.check == checks.USABLE_CONTEXT.name and p.result.sae_id in moved
        else p
        for p in found
    )


def _has_limit(check: str) -> bool:
    return not checks.named(check).is_exact and check != checks.NO_REGRESSION.name


def _moves(proposal: Proposal) -> bool:
    of, limit = proposal.of, proposal.limit
    return of is not None and limit is not None and limit.value != of.limit.value


def to_toml(run: Record) -> str:
    """A file of limits: how they were measured, as comments, then a table per SAE and check."""
    return _toml(run, propose_all(run))


def _toml(run: Record, proposals: Sequence[Proposal]) -> str:
    lines = [*_commented(_head(run)), "", "schema = 1"]
    for proposal in proposals:
        lines += ["", *_table(run.release.name, proposal)]
    return "\n".join(lines) + "\n"


def write(run: Record, path: Path, *, name: str) -> tuple[Proposal, ...]:
    """
    Write the limits of *run* to the new file *path*. Returns what is proposed.

    Args:
        run: a whole release, measured to the end.
        path: where nothing is yet.
        name: of the record, for messages.

    Raises:
        RecordError: the run was not measured to the end, or is a shard, or no limit follows from it.
        UsageError: the file exists or cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise _exists(path)
    _check_whole(run, name)
    proposals = propose_all(run)
    if not any(proposal.limit for proposal in proposals):
        attempt = f"sae-checks report {errors.shown(name)}, which shows what was not measured and why"
        raise errors.not_calibrated(name, "it has no measured value of a limited measure", attempt)
    try:
        with path.open("x", encoding="utf-8") as file:  # WHY "x": a file created since then must survive
            file.write(_toml(run, proposals))
    except FileExistsError:
        raise _exists(path) from None
    except OSError as problem:
        raise errors.not_written(str(path), str(problem)) from None
    return proposals


def _exists(path: Path) -> errors.UsageError:
    return errors.bad_option(
        "--out", str(path), "a new file: none is overwritten", str(path.with_stem(f"{path.stem}-new"))
    )


def _check_whole(run: Record, name: str) -> None:
    options = dict(run.options)
    if options.get("shard") is not None:
        attempt = "sae-checks merge RECORD... --out=record.json"
        raise errors.not_calibrated(name, f"it is the record of shard {options['shard']}", attempt)
    if options.get("profile") != "full":
        given = [
            (name, options.get(name)) for name in ("release", "name", "model", "corpus", "lambada", "cbt", "thresholds")
        ]
        same = " ".join(errors.typed(f"--sae-{name}", str(value)) for name, value in given if value is not None)
        attempt = f"pytest {same} --sae-profile=full --sae-out=full"
        raise errors.not_calibrated(name, f"it is of a run with --sae-profile={options.get('profile')}", attempt)


def pattern_of(name: str) -> str:
    """The fnmatch pattern that matches *name* and nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)


def quoted(text: str) -> str:
    """*text* as a TOML basic string, with escapes for what cannot be printed."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(c: str) -> str:
    if c in '"\\':
        return f"\\{c}"
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def _far_enough(measured: Estimate, current: Limit, to_pass: float) -> float:
    if current.kind == "max":
        far = measured.value + max(WIDENING * (measured.high - measured.value), to_pass)
        return _rounded(far + _margin(measured), ROUND_CEILING)
    far = measured.value - max(WIDENING * (measured.value - measured.low), to_pass)
    return _rounded(far - _margin(measured), ROUND_FLOOR)


def _to_pass(measured: Estimate, result: Result, current: Limit, skewness: float) -> float:
    """The distance from value to limit at which so many sequences would pass; 0 for a counted measure."""
    if measured.low == measured.high or measured.n < N_LEAST:
        return 0.0
    paired = result.paired_sample
    if isinstance(paired, PairedRatio) and paired.measure == measured.measure and paired.n >= N_LEAST:
        passing = sequential.passing_limit(paired.first(paired.n), current, _budget(measured))
        if passing is not None:
            return max(0.0, (passing - measured.value) * (1 if current.kind == "max" else -1))
    error = (measured.high - measured.low) / 2 / t_quantile(measured.n)
    numbers = (measured.n, 0.0, error * math.sqrt(measured.n), skewness)
    of = Moments(**dict(zip(("n", "mean", "sd", "skewness"), map(np.asarray, numbers), strict=True)))
    with np.errstate(over="ignore"):
        upper = float(bounds.upper_bound(of, _budget(measured), None))
    return upper if math.isfinite(upper) else 0.0


def _budget(measured: Estimate) -> Budget:
    return Budget(n_planned=measured.n, n_most=measured.n, n_checks=1)


def _margin(measured: Estimate) -> float:
    scale = abs(measured.value)
    if measured.unit == "fraction":
        scale = min(scale, abs(1 - measured.value))
    return max(MARGIN_SHARE * scale, MARGIN_LEAST.get(measured.unit, 0.0))


def _rounded(value: float, rounding: str) -> float:
    if value == 0 or not math.isfinite(value):
        return value
    exact = Decimal(value)
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), rounding=rounding))


def _table(release: str, proposal: Proposal) -> Iterator[str]:
    result, limit = proposal.result, proposal.limit
    if limit is None:
        measure = f" ({proposal.of.limit.measure})" if proposal.of is not None and result.other_limits else ""
        yield from _commented(
            [f"no limit for {result.check}{measure} of {result.sae_id}: {proposal.why_none.splitlines()[0]}"]
        )
        return
    table = (
        f"[release.{quoted(pattern_of(release))}.sae.{quoted(pattern_of(result.sae_id))}.{result.check}.{limit.measure}]",
        f"{limit.kind} = {limit.value!r}",
        f"unit = {quoted(limit.unit)}",
        f"source = {quoted(limit.source)}",
        *(() if limit.worst is None else (f"worst = {limit.worst!r}",)),
    )
    if proposal.rates is not None:
        yield from _commented(_rate_lines(proposal.rates))
    if proposal.is_written:
        yield from table
    else:
        assert proposal.of is not None
        yield from _commented([f"FAILED {proposal.of.limit}: look at this SAE before you let it pass by", *table])


def _rate_lines(rates: ErrorRates) -> Iterator[str]:
    yield (
        f"at this limit, of {resampled_error_rates.N_RESAMPLES} plans resampled from what was measured: "
        f"{rates.passed:.1%} would pass, {rates.failed:.1%} fail"
    )
    if not rates.is_as_promised:
        above = f"{resampled_error_rates.WARNS_ABOVE:g} times the nominal {ALPHA:.0%}"
        yield f"MORE than {above}: do not trust verdicts near this limit"


def _head(run: Record) -> Iterator[str]:
    made_of = [result.provenance for result in run.results if result.provenance is not None]
    yield f"Limits of the release {run.release.name}, measured and NOT REVIEWED."
    yield "Before you use them, read each one, change those that do not convince you, and say so in their source."
    yield ""
    yield from _RULE.splitlines()
    yield ""
    yield f"run       {run.started}, {run.platform}"
    yield f"release   {run.release.source}" + (f" at {run.release.revision}" if run.release.revision else "")
    for model in dict.fromkeys(provenance.model for provenance in made_of):
        yield f"model     {model.source}, {model.architecture}, {model.dtype} on {model.device}"
        yield from (f"          {file.name} sha256 {file.sha256}" for file in model.weights)
    for corpus in dict.fromkeys(provenance.corpus for provenance in made_of):
        size = f"{corpus.n_sequences} of at most {corpus.n_context_tokens} tokens"
        yield f"{corpus.kind:9} {corpus.source}, {size}, {'with' if corpus.prepend_bos else 'without'} BOS"
        yield f"          sha256 {corpus.sha256}"
        yield f"          fingerprint {corpus.fingerprint}"
    for sae in dict.fromkeys(provenance.sae for provenance in made_of if provenance.sae is not None):
        for file in sae.weights:
            yield f"SAE       {sae.sae_id}, {file.name} sha256 {file.sha256}"
    yield "options   " + ", ".join(f"{key} = {value}" for key, value in run.options if value is not None)
    yield "software  " + ", ".join(f"{package.name} {package.version}" for package in run.software)


def _commented(lines: Iterator[str] | list[str]) -> Iterator[str]:
    """*lines* as comments. WHY shown(): TOML allows no control characters there, and a release chooses its names."""
    return (f"# {errors.shown(line, n_most=100_000)}".rstrip() for line in lines)
