"""docs/examples.md: every command runs as it stands, in this order, and ends as the page says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/examples.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
(PYTHON,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shell(tmp_path_factory, installed_python):
    """One folder for all, and the installed package first in the path."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "bin").mkdir()
    script = folder / "bin/pytest"  # the environment has pytest without its script
    script.write_text(f'#!/bin/sh\nexec {installed_python} -m pytest "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON"))}
    path = f"{folder / 'bin'}:{installed_python.parent}:/usr/bin:/bin"

    def run(*command):
        env = {**kept, "PATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)

    return run


def test_every_command_of_the_page(shell):
    """Green but for the one that shows what red looks like; in the end Python reads that one's record."""
    assert COMMANDS
    for command in COMMANDS:
        done = shell("bash", "-c", command)
        assert done.returncode == ("demo-broken" in command), f"{command}\n{done.stdout}{done.stderr}"
        assert "no tests ran" not in done.stdout
    told = shell("python", "-c", PYTHON).stdout
    assert "blocks.2.hook_resid_pre ce_loss" in told
    assert "blocks.2.hook_resid_pre sparsity 0.45" in told
