"""A record -> the formats of other tools: github-action-benchmark, Bencher, Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from sae_checks import errors
from sae_checks.judging.estimates import Estimate
from sae_checks.record.record import Json
from sae_checks.record.results import Record, Result

Better = Literal["smaller", "bigger"]

BETTER: tuple[Better, ...] = get_args(Better)


def github_action_benchmark(run: Record, better: Better) -> list[Json]:
    """
    The limited measures of *run* for github-action-benchmark.

    Args:
        run: the record.
        better: `smaller` for its tool customSmallerIsBetter, `bigger` for customBiggerIsBetter. A measure with a
            range, which has two bad sides, is in neither.
    """
    return [
        {
            "name": f"{run.release.name} / {result.sae_id} / {result.check} / {estimate.measure}",
            "unit": estimate.unit,
            "value": estimate.value,
            "range": f"{estimate.low:.6g} to {estimate.high:.6g}",
            "extra": f"{result.outcome.replace('_', ' ')}, n = {estimate.n}, limit {result.limit}",
        }
        for result, estimate in _limited(run)
        if better_of(result) == better
    ]


def bencher(run: Record) -> dict[str, dict[str, dict[str, float]]]:  # BMF: benchmark -> measure -> value and bounds
    """All measures of *run* in Bencher Metric Format, with a benchmark per SAE and check."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for result in run.results:
        if result.estimates:
            name = f"{run.release.name} / {result.sae_id} / {result.check}"
            found[name] = {
                e.measure: {"value": e.value, "lower_value": e.low, "upper_value": e.high} for e in result.estimates
            }
    return found


def scalars(run: Record) -> dict[str, float | str]:  # W&B's summary has string keys
    """All measures of *run* with their intervals, and all outcomes, by `SAE/check/measure`."""
    found: dict[str, float | str] = {}
    for result in run.results:
        name = f"{result.sae_id}/{result.check}"
        found[f"{name}/outcome"] = result.outcome
        for e in result.estimates:
            found |= {
                f"{name}/{e.measure}": e.value,
                f"{name}/{e.measure}_low": e.low,
                f"{name}/{e.measure}_high": e.high,
            }
    return found


def wandb_offline(run: Record, folder: Path, project: str) -> Path:
    """
    Write *run* as an offline run of W&B. Sends nothing, and ends all other use of W&B in this process.

    Returns:
        The run's folder below *folder*, for `wandb sync`.

    Raises:
        UsageError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as problem:
        raise errors.wandb_missing(str(problem)) from None
    config: Mapping[str, Any] = {
        "release": run.release.name,
        "source": run.release.source,
        "revision": run.release.revision,
        "started": run.started,
        "exit_status": run.exit_status,
        "options": dict(run.options),
        "software": {package.name: package.version for package in run.software},
    }
    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        x_disable_meta=True,  # WHY: the machine that exports is not the one that measured
        x_disable_stats=True,
        x_save_requirements=False,
    )
    with wandb.init(
        mode="offline", dir=folder, project=project, name=run.release.name, config=dict(config), settings=quiet
    ) as offline_run:
        offline_run.summary.update(scalars(run))
        written = Path(offline_run.dir).parent
    wandb.teardown()  # TRAP: a finished offline run is not on disk before wandb's own process has ended
    return written


def better_of(result: Result) -> Better | None:
    """Whether smaller or bigger values of the limited measure of *result* are better; None: no limit, or a range."""
    if result.limit is None or result.limit.floor is not None:
        return None
    return "smaller" if result.limit.kind == "max" else "bigger"


def _limited(run: Record) -> Iterator[tuple[Result, Estimate]]:
    for result in run.results:
        for estimate in result.estimates:
            if result.limit_on(estimate.measure) is not None:
                yield result, estimate
