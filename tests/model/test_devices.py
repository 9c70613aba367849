"""Accelerators, where one is at hand: the same numbers as on the CPU. And no short cut through lower precision."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from builders import cells
from judged import judge

from sae_checks import checks
from sae_checks.losses import Span
from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.run.settle import settle
from sae_checks.run.table import ROWS

STUDIES = tuple(row.check.name for row in ROWS if row.is_study)
HOOKS = ["blocks.0.hook_resid_pre", "blocks.3.hook_resid_post"]
TOLERANCE = 1e-4
"""nats, or a share: kernels add in another order."""
IS_HERE = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}


def executor(device):
    small = {"n_sequences": 32, "n_study_sequences": 8, "profile": "full"}
    asked = settle(Options(release="demo", sae_ids=tuple(HOOKS), device=device, **small))
    return LocalExecutor(asked.plan), asked


@pytest.mark.parametrize("device", IS_HERE)
def test_an_accelerator_measures_what_the_cpu_does(device):
    """Losses of the text per sequence, answers, and every study's values."""
    if not IS_HERE[device]():
        pytest.skip(f"no {device} here")
    (here, asked), (there, _) = executor("cpu"), executor(device)
    for hook in HOOKS:
        expected, found = (each.measure("text", hook, HOOKS).losses for each in (here, there))
        for field in fields(Span):
            a, b = (getattr(losses.within, field.name) for losses in (expected, found))
            np.testing.assert_allclose(b, a, rtol=TOLERANCE, atol=TOLERANCE * expected.within.n_tokens.max())
        np.testing.assert_allclose(found.ce_ablated_nats, expected.ce_ablated_nats, rtol=TOLERANCE)
        expected, found = (each.measure("lambada", hook, HOOKS).losses for each in (here, there))
        np.testing.assert_allclose(found.spliced_logprob_nats, expected.spliced_logprob_nats, atol=1e-3)
    for cell in cells(HOOKS, *(checks.named(name) for name in STUDIES if checks.named(name).of == "sae")):
        of_both = [judge(each, asked, cell[0], checks.named(cell[1])) for each in (here, there)]
        for a, b in zip(*(result.estimates for result in of_both), strict=True):
            assert b.value == pytest.approx(a.value, rel=1e-2, abs=1e-3), (cell, a.measure)


@pytest.mark.parametrize("device", IS_HERE)
def test_an_accelerator_explains_as_the_cpu_does(device):
    """The same predictions, with what each position recovers."""
    if not IS_HERE[device]():
        pytest.skip(f"no {device} here")
    (here, _), (there, _) = executor("cpu"), executor(device)
    texts = [each.text(HOOKS[1], HOOKS) for each in (here, there)]
    documents = texts[0].losses.documents[:3].tolist()
    expected, found = (
        each.explain(HOOKS[1], text, documents).tokens for each, text in zip((here, there), texts, strict=True)
    )
    assert [(t.document, t.position, t.token) for t in found] == [(t.document, t.position, t.token) for t in expected]
    for a, b in zip(expected, found, strict=True):
        assert b.increase_nats == pytest.approx(a.increase_nats, rel=1e-2, abs=1e-3)
        nats = [{s.position: s.recovered_nats for s in token.sources} for token in (a, b)]
        assert nats[1] == pytest.approx(nats[0], rel=1e-2, abs=1e-3)


def test_products_are_in_float32_whatever_was_set():
    """TF32 and bfloat16 products are the user's for other work; a gate says that SAEs and losses are in float32."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        executor("cpu")
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
