"""The benchmark against SAE Lens, on a small model: it runs, both sides agree, and it goes red when they do not."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.filterwarnings("ignore")  # SAE Lens's and TransformerLens's own


def ran(*args):
    command = [sys.executable, str(BENCHMARKS / "vs_saelens.py"), "--quick", "--rounds=1", "--threads=1", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_both_sides_agree_on_a_small_model():
    """CE, KL, L0 and explained variance of every SAE, and a ratio is told of each side."""
    done = ran("--context", "128", "--saes=3", "--bf16")
    assert done.returncode == 0, done.stderr
    assert "agree to 0.0001" in done.stdout
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| sae")]
    assert rows == ["sae-checks", "sae-checks, ablation too", "sae-checks, bfloat16 model", "sae_lens.evals"]


@pytest.fixture
def vs_saelens(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("vs_saelens")


@pytest.mark.parametrize("name", ["ce_clean", "ce_spliced", "kl", "l0", "explained_variance"])
def test_it_goes_red_when_a_value_differs(vs_saelens, monkeypatch, name):
    """A thousandth off in any of the values compared ends it."""
    values = vs_saelens.Values(ce_clean=3.0, ce_spliced=3.1, kl=0.1, l0=60.0, explained_variance=0.9)
    sae = type("S", (), {"cfg": type("C", (), {"metadata": type("M", (), {"hook_name": "blocks.0.hook_resid_pre"})})})
    work = vs_saelens.Work(
        shape=None, raw=None, model=None, hooked=None, saes=[sae], sequences=None, peer_at=(0,), in_bfloat16=None
    )
    monkeypatch.setattr(importlib.import_module("saelens_side"), "kl_of_scored", lambda *_: values.kl)
    vs_saelens.agree(work, [values], [values])
    off = replace(values, **{name: getattr(values, name) * 1.001})
    with pytest.raises(SystemExit, match=name):
        vs_saelens.agree(work, [off], [values])


@pytest.mark.parametrize("name", ["ce_clean", "ce_spliced", "kl", "l0", "squared_error"])
def test_it_goes_red_when_saebench_differs(vs_saelens, name):
    """The same for what is compared with SAEBench, by its name; its explained variance is not."""
    side = importlib.import_module("saebench_side")
    values = vs_saelens.Values(ce_clean=3.0, ce_spliced=3.1, kl=0.1, l0=60.0, explained_variance=0.9, squared_error=4.0)
    sae = type("S", (), {"cfg": type("C", (), {"metadata": type("M", (), {"hook_name": "blocks.0.hook_resid_pre"})})})
    work = vs_saelens.Work(
        shape=None, raw=None, model=None, hooked=None, saes=[sae], sequences=None, peer_at=(0,), in_bfloat16=None
    )
    how = {"peer": "SAEBench", "names": side.NAMES, "kl": lambda *_: values.kl}
    vs_saelens.agree(work, [values], [replace(values, explained_variance=-1.0)], **how)
    off = replace(values, **{name: getattr(values, name) * 1.001})
    with pytest.raises(SystemExit, match=f"{name} is .* in SAEBench"):
        vs_saelens.agree(work, [off], [values], **how)


def test_saebench_agrees_or_says_that_it_is_not_installed():
    """SAEBench is no dependency: where it is missing the program ends with what to install, and measures nothing."""
    done = ran("--context", "128", "--saes=2", "--no-ablation", "--saebench")
    if importlib.util.find_spec("sae_bench") is None:
        assert done.returncode != 0
        assert "pip install --no-deps sae-bench" in done.stderr
        assert "agree" not in done.stdout
    else:
        assert done.returncode == 0, done.stderr
        assert "agree with SAEBench to 0.0001" in done.stdout
        assert "times as fast as sae_bench core" in done.stdout


@pytest.mark.skipif("SAE_CHECKS_DATA" not in os.environ, reason="SAE_CHECKS_DATA names no folder of real releases")
def test_both_sides_agree_on_a_real_model():
    """stories260K and its six SAEs, on its own text, at both contexts."""
    done = ran("--stories", os.environ["SAE_CHECKS_DATA"], "--no-ablation")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agree to 0.0001") == 2
    assert "## stories260K, context 512" in done.stdout


def test_stories_that_are_not_there_are_said(tmp_path):
    """The folder is an argument, and what lacks in it is named."""
    done = ran("--stories", str(tmp_path))
    assert done.returncode != 0
    assert f"{tmp_path / 'stories260K'} is not there" in done.stderr


def test_work_is_counted(vs_saelens):
    """By hand for one SAE behind the first of two layers: clean pass, encoding, decoding, one layer, unembedding."""
    shape = vs_saelens.Shape(n_layers=2, d_model=8, n_heads=2, n_vocabulary=100, d_sae=64, l0=4)
    sae = type("S", (), {"cfg": type("C", (), {"metadata": type("M", (), {"hook_name": "blocks.1.hook_resid_pre"})})})
    sequences = type("T", (), {"tokens": np.zeros((3, 10))})
    work = vs_saelens.Work(
        shape=shape, raw=None, model=None, hooked=None, saes=[sae], sequences=sequences, peer_at=(0,), in_bfloat16=None
    )
    layer, unembed = 24 * 64 + 2 * 8 * 10, 2 * 8 * 100
    clean, own = 2 * layer + unembed, 2 * 8 * (64 + 4) + layer + unembed
    assert vs_saelens.flop(work, ablates=False) == 30 * (clean + own)
    assert vs_saelens.flop(work, ablates=True) == 30 * (clean + own + layer + unembed)
    assert [importlib.import_module("work").start_of(one) for one in work.saes] == [1]


def told(script, *args):
    """The cells of the tables that *script* prints, without their heads."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    return [row for row in rows[1:] if set(row[0]) != {"-"}]


def test_products_of_a_sweep_are_nearly_all_of_its_arithmetic():
    """As it is counted by hand; decoding and attention are no such products. The shares are told of every round."""
    command = [sys.executable, str(BENCHMARKS / "products.py"), "--quick", "--rounds=2", "--threads=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 85 <= int(re.search(r"products, (\d+)% of the arithmetic", done.stdout)[1]) <= 100
    assert len(re.findall(r"^\| [12] \|", done.stdout, re.MULTILINE)) == 2


def test_verdicts_are_reached_from_less_than_the_plan():
    """All SAEs pass under a limit of twice what they cost, and fail over one of half of it, before the plan's end."""
    passed, failed = told("to_a_verdict.py", "--quick", "--saes=3", "--planned=64", "--threads=1")
    assert (passed[2], failed[2]) == ("3 passed", "3 failed")
    assert all(int(row[1].rpartition(" ")[2]) < 64 for row in (passed, failed))


def test_time_and_memory_are_told_of_every_series(tmp_path):
    """Each value of each, a series whose SAEs are loaded from files too, and there is a plot."""
    rows = told("scaling.py", "--quick", "--rounds=1", f"--out={tmp_path / 'scaling.png'}")
    assert [row[0] for row in rows[::2]] == ["n_saes", "n_sequences", "d_sae", "n_context", "n_saes, loaded by twos"]
    assert all(float(row[2]) > 0 for row in rows)
    assert (tmp_path / "scaling.png").read_bytes()[1:4] == b"PNG"
