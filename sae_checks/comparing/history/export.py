"""One record -> what other tools read. Thin: they get the numbers as they are, and no verdict is made here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from sae_checks import errors
from sae_checks.judging.estimates import Estimate
from sae_checks.record.record import Json, Record, Result

Better = Literal["smaller", "bigger"]

BETTER: tuple[Better, ...] = get_args(Better)


def github_action_benchmark(run: Record, better: Better) -> list[Json]:
    """
    The limited measures of *run* of which *better* is better.

    For github-action-benchmark's tool customSmallerIsBetter or customBiggerIsBetter. Those of ranges, which have two
    bad sides, are in neither.
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
    """Every measure of every check of *run* in Bencher Metric Format, a benchmark per SAE and check."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for result in run.results:
        if result.estimates:
            name = f"{run.release.name} / {result.sae_id} / {result.check}"
            found[name] = {
                e.measure: {"value": e.value, "lower_value": e.low, "upper_value": e.high} for e in result.estimates
            }
    return found


def scalars(run: Record) -> dict[str, float | str]:  # W&B's summary has string keys
    """Every measure of *run* with its bounds, and every outcome, by `SAE/check/measure`."""
    found: dict[str, float | str] = {}
    for result in run.results:
        place = f"{result.sae_id}/{result.check}"
        found[f"{place}/outcome"] = result.outcome
        for e in result.estimates:
            found |= {
                f"{place}/{e.measure}": e.value,
                f"{place}/{e.measure}_low": e.low,
                f"{place}/{e.measure}_high": e.high,
            }
    return found


def wandb_offline(run: Record, folder: Path, project: str) -> Path:
    """
    *run* as an offline run of W&B below *folder*; its folder, which `wandb sync` uploads. Nothing is sent.

    Whatever else this process does with W&B is ended, too.

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
        x_disable_meta=True,  # the machine and the checkout that export are not those that measured
        x_disable_stats=True,
        x_save_requirements=False,
    )
    with wandb.init(
        mode="offline", dir=folder, project=project, name=run.release.name, config=dict(config), settings=quiet
    ) as kept:
        kept.summary.update(scalars(run))
        place = Path(kept.dir).parent
    wandb.teardown()  # TRAP: a finished offline run is not on disk before wandb's own process has ended
    return place


def better_of(result: Result) -> Better | None:
    """Which way the limited measure of *result* is better; None: no limit, or one on both sides."""
    if result.limit is None or result.limit.floor is not None:
        return None
    return "smaller" if result.limit.kind == "max" else "bigger"


def _limited(run: Record) -> Iterator[tuple[Result, Estimate]]:
    for result in run.results:
        for estimate in result.estimates:
            if result.limit is not None and estimate.measure == result.limit.measure:
                yield result, estimate
