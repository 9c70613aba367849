"""
How much of a sweep is its matrix products, and how fast these could be: the same products alone, one after another.

python benchmarks/products.py [--context 128] [--rounds 3] [--threads 2] [--quick]

The release of vs_saelens.py is measured once under the profiler, which tells the shape of every product and the time
it took there. Then, in turn: the sweep as it is; and products of these shapes, as many of each, with other weights
each time (as the SAEs and layers have), into memory that is there. What these take is the least that this BLAS needs.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections import Counter

warnings.simplefilter("ignore")  # SAE Lens's own

import random_release
import torch
from random_release import Shape
from timing import matmul_rate, now
from torch.profiler import ProfilerActivity, profile
from work import Work, flop, ours

Product = tuple[int, int, int]
"""Rows, inner dimension, columns."""
PRODUCTS = ("aten::mm", "aten::addmm")
N_WEIGHTS = 3
"""that are taken in turn: none is still in the cache from the time before."""


def products_of(work: Work) -> tuple[Counter[Product], float]:
    """Every product of a sweep, and the seconds that they took in it."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        ours(work, ablates=False)
    found: Counter[Product] = Counter()
    seconds = 0.0
    for event in seen.events():
        if event.name in PRODUCTS:
            first = int(event.name == "aten::addmm")  # behind what is added; what is written to comes last
            a, b = event.input_shapes[first : first + 2]
            found[a[0], a[1], b[1]] += 1
            seconds += event.self_cpu_time_total / 1e6
    return found, seconds


@torch.inference_mode()
def alone(products: Counter[Product], n_vocabulary: int) -> float:
    """Seconds of *products* and nothing else."""
    total = 0.0
    for (n_rows, n_inner, n_columns), n in products.items():
        rows, out = torch.randn(n_rows, n_inner), torch.empty(n_rows, n_columns)
        shape = (n_columns, n_inner) if n_columns == n_vocabulary else (n_inner, n_columns)  # as each lies in memory
        weights = [torch.randn(shape) for _ in range(N_WEIGHTS)]
        weights = [w.T if n_columns == n_vocabulary else w for w in weights]
        torch.mm(rows, weights[0], out=out)
        start = now()
        for i in range(n):
            torch.mm(rows, weights[i % N_WEIGHTS], out=out)
        total += now() - start
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a small model and narrow SAEs")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shape = Shape(n_layers=3, d_model=64, n_heads=4, n_vocabulary=1000, d_sae=512, l0=16) if asked.quick else Shape()
    raw = random_release.model(shape)
    made = random_release.sequences(shape, n_sequences=max(1, 256 // asked.context), n_context=asked.context)
    saes = random_release.saes(raw, shape, shape.hooks)
    model = random_release.measured_model(raw, shape)
    work = Work(shape=shape, raw=raw, model=model, hooked=None, saes=saes, peer_at=(), sequences=made)
    products, within = products_of(work)
    n_flop = sum(2 * n * m * k * c for (m, k, c), n in products.items())
    print(f"{sum(products.values())} products, {n_flop / flop(work, ablates=False):.0%} of the arithmetic; ", end="")
    print(f"under the profiler they took {within:.2f} s")
    print("| round | sweep, s | products alone, s | of the sweep | matmul rate reached: sweep | products alone |")
    print("|---" * 6 + "|")
    shares = []
    for i in range(asked.rounds):
        start = now()
        ours(work, ablates=False)
        sweep = now() - start
        least = alone(products, shape.n_vocabulary)
        peak = matmul_rate(torch.float32)
        shares.append(least / sweep)
        told = f"{flop(work, ablates=False) / sweep / peak:.0%} | {n_flop / least / peak:.0%}"
        print(f"| {i + 1} | {sweep:.2f} | {least:.2f} | {shares[-1]:.0%} | {told} |", flush=True)
    print(f"\nproducts alone, of the sweep: {statistics.median(shares):.0%}")


if __name__ == "__main__":
    main()
