"""Golden prompts in a run of pytest: items for SAEs that have them, none for the others, their numbers when off."""

import pytest
from tiny_release import CHECKS, HOOKS

pytest_plugins = ["pytester"]

SAE = HOOKS[1]
N_OTHERS = len(HOOKS) * len(CHECKS)
TABLE = """schema = 1
[[release."tiny-saes".sae."{sae}".golden]]
prompt = "bad tell dint"
answer = " fell"
probability_clean = {p}
probability_spliced = {p}
tolerance = 0.01
bos = true
special_tokens = "keep"
source = "here"
"""


@pytest.fixture
def golden(pytester, gate):
    """A run with one golden prompt for *sae* that expects *p*."""

    def run(*args, p, sae=SAE):
        (pytester.path / "own.toml").write_text(TABLE.format(p=p, sae=sae))
        return gate(f"--sae-thresholds={pytester.path / 'own.toml'}", *args)

    return run


def test_one_item_for_the_one_sae_that_has_a_prompt(golden):
    """Off it is a <failure> with its numbers; expected as it was measured it is green, and all others are."""
    off = golden(p=0.999)
    assert (off.exit_code, off.counts) == (1, {"failed": 1, "passed": N_OTHERS}), off.text
    message = off.junit[SAE, "golden"].find("failure").text
    assert "'bad tell dint' -> ' fell': clean " in message
    assert "(expected 0.999)" in message
    values = {e.measure: e.value for e in off.results[SAE, "golden"].estimates}
    assert values["golden_probability_clean"] == pytest.approx(values["golden_probability_spliced"], abs=1e-6)
    right = golden(p=values["golden_probability_clean"])
    assert (right.exit_code, right.counts) == (0, {"passed": N_OTHERS + 1}), right.text
    assert {check for sae_id, check in right.results if sae_id != SAE} == set(CHECKS)


def test_no_item_and_no_skip_where_no_sae_has_a_prompt(golden, gate):
    """Neither in the run, nor in the record, nor by its path: a check that nobody asked for is not a skip."""
    run = gate("--collect-only", "-q")
    assert run.exit_code == 0, run.text
    assert "test_golden" not in run.text
    assert golden(p=0.5, sae="another").exit_code == pytest.ExitCode.USAGE_ERROR
    run = gate("--pyargs", "sae_checks.gate.test_golden")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR, run.text
    assert "no check of the release ran" in run.text
