"""A corpus with which no check can pass is said before anything is measured."""

import pytest
from builders import around, limit, sampled

from sae_checks.judging import verdict
from sae_checks.judging.budget import N_LEAST_TO_PASS, Budget
from sae_checks.plan.options import N_LEAST_TO_DECIDE, Options
from sae_checks.run import enough


@pytest.mark.parametrize(
    ("kind", "n", "n_sequences", "attempt"),
    [
        ("text", 31, 256, "--sae-sequences=31"),
        ("text", 15, 256, "--sae-corpus=FILE with at least 32 documents"),
        ("text", 32, 256, None),
        ("text", 15, 64, "--sae-corpus=FILE with at least 24 documents"),
        ("text", 24, 64, None),
        ("lambada", 7, 256, "--sae-lambada=FILE with at least 8 passages, or --sae-lambada=none"),
        ("lambada", 8, 256, None),
        ("cbt", 7, 256, "--sae-cbt=FILE with at least 8 queries, or --sae-cbt=none"),
        ("golden", 1, 256, None),
    ],
)
def test_too_few_are_refused_with_what_to_type(kind, n, n_sequences, attempt):
    """The least number is that of the plan; a smaller plan is offered where it would do."""
    found = enough.too_few(kind, "a file", n, Options(release="r", n_sequences=n_sequences))
    assert (found is None) == (attempt is None)
    assert found is None or str(found).endswith(f"  try:      {attempt}")


@pytest.mark.parametrize("n_sequences", [16, 32, 33, 64, 65, 256])
def test_the_least_number_is_the_one_that_can_pass(n_sequences):
    """An exact SAE passes with it and not with one sequence less."""
    for n in range(8, 40):
        budget = Budget(n_planned=n_sequences, n_most=n, n_checks=31)
        found = verdict.judge((sampled("ce_increase", around(0.0, 1e-6, n)),), limit(value=0.3), budget)
        refused = enough.too_few("text", "a file", n, Options(release="r", n_sequences=n_sequences))
        assert (found.outcome == "passed") == (refused is None), n


def test_the_least_option_is_that_of_a_small_plan():
    """The options are read without NumPy, so they have a number of their own."""
    assert N_LEAST_TO_DECIDE == N_LEAST_TO_PASS // 2
