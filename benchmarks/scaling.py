"""
Time and peak memory of measuring text against the number of SAEs, of sequences, of latents, and the context.

python benchmarks/scaling.py [--out scaling.png] [--rounds 3] [--quick]

A model of 4 layers with random weights and SAEs at L0 ~ 32, on one thread. Every point is measured in a process of its
own, in batches of 1024 tokens; time is the process's own, the median of the rounds. What is linear in work has a
straight line in the upper row, what is streamed a flat one in the lower. The last series loads its SAEs from files,
into room for two of them: its memory has their weights in it.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import statistics
import warnings
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

warnings.simplefilter("ignore")  # SAE Lens's own

import random_release
import torch
from random_release import Shape
from timing import timed
from work import Work, flop, ours

from sae_checks.corpora.sequences import Sequences
from sae_checks.measuring import corpus_pass
from sae_checks.model.hugging_face import HuggingFaceModel
from sae_checks.release import release
from sae_checks.release.release import Sae
from sae_checks.saes.lazy_weights import LazySae, WeightCache

SHAPE = Shape(n_layers=4, d_model=256, n_heads=4, n_vocabulary=8192, n_positions=1024, d_sae=2048, l0=32)
N_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One size; all but one of its numbers are the same in a series."""

    n_saes: int = 4
    n_sequences: int = 16
    d_sae: int = 2048
    n_context: int = 128
    is_grouped: bool = False
    """SAEs are loaded from files, two at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one size took."""

    seconds: float
    memory_mib: float
    """the most beyond model, SAEs and text."""
    work: float
    """multiplications and additions."""


SERIES = {
    "n_saes": (1, 2, 4, 8),
    "n_sequences": (8, 16, 32, 64),
    "d_sae": (1024, 2048, 4096, 8192, 16384),
    "n_context": (64, 128, 256, 512, 1024),
}
GROUPED = "n_saes, loaded by twos"


def measured(point: Point, raw: torch.nn.Module, to: Connection) -> None:
    shape = replace(SHAPE, d_sae=point.d_sae)
    hooks = tuple(shape.hooks[i % len(shape.hooks)] for i in range(point.n_saes))
    made = random_release.sequences(shape, n_sequences=point.n_sequences, n_context=point.n_context)
    saes = random_release.saes(raw, shape, hooks)
    model = random_release.measured_model(raw, shape)
    work = Work(shape=shape, raw=raw, model=model, hooked=None, saes=saes, peer_at=(), sequences=made)
    n_flop = flop(work, ablates=False)
    with TemporaryDirectory() as folder:
        if point.is_grouped:
            lazy = lazy_saes(saes, Path(folder))
            del work, saes
            gc.collect()
            _, seconds, memory = timed(lambda: by_groups(model, lazy, made))
        else:
            _, seconds, memory = timed(lambda: ours(work, ablates=False, n_batch_tokens=N_BATCH_TOKENS))
    to.send(Found(seconds=seconds, memory_mib=memory, work=n_flop))


def lazy_saes(saes: list[Any], folder: Path) -> tuple[WeightCache, list[LazySae]]:  # Any: sae_lens ships no types
    """*saes*, saved in *folder* and known from there, in a cache with room for two."""
    for i, sae in enumerate(saes):
        sae.save_model(folder / f"{i}")
    described = [sae for sae in release.resolve(str(folder)).saes if isinstance(sae, Sae)]
    cpu, everything = torch.device("cpu"), slice(0, None)
    cache = WeightCache(lambda: 2 * lazy[0].n_bytes)
    lazy = [LazySae(each, cache, device=cpu, center=False, head_slice=everything) for each in described]
    return cache, lazy


def by_groups(model: HuggingFaceModel, on: tuple[WeightCache, list[LazySae]], made: Sequences) -> None:
    """As `ours`, group by group; what it finds is not looked at here."""
    cache, saes = on
    for group in cache.groups_that_fit(saes):
        cache.start_loading(group)
        corpus_pass.measure_text(
            model, group, made, n_batch_tokens=N_BATCH_TOKENS, progress=lambda *_: None, ablates=False
        )
        cache.finish_loading()


def series(*, is_quick: bool) -> dict[str, dict[int, Point]]:
    """By what is varied and its value."""
    found = {name: {value: replace(Point(), **{name: value}) for value in values} for name, values in SERIES.items()}
    found[GROUPED] = {n_saes: Point(n_saes=n_saes, d_sae=16384, is_grouped=True) for n_saes in SERIES["n_saes"]}
    return {name: dict(list(points.items())[: 2 if is_quick else None]) for name, points in found.items()}


def in_a_process_of_its_own(point: Point, raw: torch.nn.Module) -> Found:
    """Memory that an earlier point has given back is not this one's."""
    context = multiprocessing.get_context("fork")  # what is imported and the model need not be made again
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=measured, args=(point, raw, there))
    process.start()
    there.close()
    try:
        found: Found = here.recv()
    finally:
        process.join()
    return found


def plot(found: dict[str, dict[int, Found]], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(found), figsize=(4 * len(found), 6), sharey="row")
    for (name, points), (above, below) in zip(found.items(), axes.T, strict=True):
        above.plot([f.work / 1e12 for f in points.values()], [f.seconds for f in points.values()], "o-")
        for value, f in points.items():
            above.annotate(f"{value}", (f.work / 1e12, f.seconds), textcoords="offset points", xytext=(4, -10))
        above.set(title=name, xlabel="work, TFLOP")
        below.plot(list(points), [f.memory_mib for f in points.values()], "o-")
        below.set(xlabel=name)
    for axis in axes.flat:  # when all is drawn: a limit that is set ends the search for the others
        axis.set_ylim(bottom=0)
    for axis in axes[0]:
        axis.set_xlim(left=0)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory beyond\nmodel and SAEs, MiB")
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("scaling.png"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two points of each series")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # before anything is computed: a process that was forked cannot use the others' threads
    raw = random_release.model(SHAPE)
    rounds: list[dict[Point, Found]] = []
    points = series(is_quick=asked.quick)
    for _ in range(asked.rounds):
        of_round: dict[Point, Found] = {}
        for point in (p for of_series in points.values() for p in of_series.values()):
            if point not in of_round:
                of_round[point] = in_a_process_of_its_own(point, raw)
        rounds.append(of_round)
    print("| varied | value | seconds | GFLOP/s | peak memory, MiB |\n|---|---|---|---|---|")
    found: dict[str, dict[int, Found]] = {}
    for name, of_series in points.items():
        found[name] = {}
        for value, point in of_series.items():
            seconds = statistics.median(of_round[point].seconds for of_round in rounds)
            memory = statistics.median(of_round[point].memory_mib for of_round in rounds)
            f = found[name][value] = replace(rounds[0][point], seconds=seconds, memory_mib=memory)
            print(f"| {name} | {value} | {f.seconds:.2f} | {f.work / f.seconds / 1e9:.0f} | {f.memory_mib:.0f} |")
    plot(found, asked.out)


if __name__ == "__main__":
    main()
