"""pytest imports the plugin in every run of the environment, so it must cost next to nothing and say nothing."""

import re

import pytest
from gate_run import run_apart

from sae_checks.plan import flags

OTHERS_THAT_IMPORT_NUMPY = ("-p", "no:jaxtyping")
PROBE = """
import sys

HEAVY = {"torch", "sae_lens", "transformers", "transformer_lens", "numpy", "scipy", "msgspec", "datasets", "yaml",
         "huggingface_hub"}


def pytest_unconfigure():
    assert "sae_checks.plugin" in sys.modules, "the entry point was not loaded"
    print("\\nheavy:", sorted(HEAVY & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def help_run(tmp_path_factory):
    """`pytest --help` by the entry point, in a folder that knows nothing of the project."""
    folder = tmp_path_factory.mktemp("help")
    (folder / "conftest.py").write_text(PROBE)
    return run_apart(folder, "--help", *OTHERS_THAT_IMPORT_NUMPY)


def test_help_imports_nothing_heavy(help_run):
    """`pytest --help` imports the standard library and pytest."""
    assert help_run.exit_code == 0
    assert "heavy: []" in help_run.text


def test_help_lists_every_option(help_run):
    """Every option stands in its group, with its default, and as an ini key; the groups have their order."""
    starts = [help_run.text.index(f"\nsae-checks: {group}:\n") for group in flags.GROUPS]
    assert starts == sorted(starts)
    for spec in flags.SPECS:
        group = help_run.text.partition(f"\nsae-checks: {spec.group}:\n")[2].partition("\n\n")[0]
        entry = spec.flag if spec.is_switch else f"{spec.flag}={spec.metavar}"
        assert entry in group
        told = re.sub(r"\s+", " ", group.partition(entry)[2])
        assert re.sub(r"\s+", " ", spec.help) in told
        if spec.default is not None:
            assert f"(default: {spec.default})" in told
        assert re.search(rf"^  {spec.key} \((string|linelist|bool)\):", help_run.text, re.MULTILINE)


def test_own_tests_import_nothing_heavy(tmp_path):
    """A run of the user's own trivial test, with the plugin installed, pays for no torch and hears nothing of it."""
    (tmp_path / "conftest.py").write_text(PROBE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n")
    (tmp_path / "test_own.py").write_text(
        "import sys\ndef test_own():\n    assert not {'torch', 'sae_lens', 'scipy', 'numpy'} & set(sys.modules)\n"
    )
    run = run_apart(tmp_path, *OTHERS_THAT_IMPORT_NUMPY)
    assert (run.exit_code, run.counts) == (0, {"passed": 1}), run.text
    assert "heavy: []" in run.text
    assert "sae-checks:" not in run.text


def test_named_twice_is_registered_once(tmp_path):
    """`-p sae_checks.plugin` beside the entry point, and a conftest that names it too, are no conflict."""
    (tmp_path / "conftest.py").write_text(PROBE + 'pytest_plugins = ["sae_checks.plugin"]\n')
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert True\n")
    run = run_apart(tmp_path, "-p", "sae_checks.plugin")
    assert (run.exit_code, run.counts) == (0, {"passed": 1}), run.text


def test_marker_is_documented(tmp_path):
    """`pytest --markers` explains the marker, so that --strict-markers knows it."""
    run = run_apart(tmp_path, "--markers")
    assert run.exit_code == 0
    assert "@pytest.mark.sae_check(name):" in run.text
