"""`sae-checks list`: what there is to judge, told fast."""

import json
import subprocess
import sys

import builders
import pytest

from sae_checks.commands import main
from sae_checks.release import registry


def test_the_saes_of_a_release(capsys):
    """One line per SAE with what its configuration says, in the release's order."""
    assert main.main(["list", "demo"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["SAE", "hook", "d_sae", "architecture", "training", "context", "model"]
    assert [line.split()[0] for line in lines] == [
        *(f"blocks.{i}.hook_resid_pre" for i in range(4)),
        "blocks.3.hook_resid_post",
    ]
    assert all(line.split()[2:] == ["512", "standard", "64", "sae-checks-demo"] for line in lines)


def test_only_those_that_match(capsys):
    """--sae-id narrows the list, and a pattern that matches nothing is exit code 4 with the message."""
    assert main.main(["list", "demo", "--sae-id", "blocks.2.*"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main.main(["list", "demo", "--sae-id", "nothing"]) == 4
    assert "matches no SAE" in capsys.readouterr().err


def test_a_broken_sae_is_listed_with_its_problem(tmp_path, capsys):
    """An SAE that cannot be used has its reason in its line; the others are listed as ever."""
    builders.write_sae(tmp_path / "good")
    broken = builders.write_sae(tmp_path / "broken")
    (broken / "cfg.json").write_text(json.dumps([]))
    assert main.main(["list", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "cannot be used" in lines["broken"]
    assert "cannot be used" not in lines["good"]


def test_the_releases_that_have_a_name(capsys):
    """Without a release: the embedded ones and all of SAE Lens's registry, with who reads them and by what leave."""
    assert main.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["demo", "demo-broken", *registry.names()]
    by_name = {line.split()[0]: line for line in lines}
    assert by_name["gpt2-small-res-jb"].endswith("SAE Lens's own")
    assert by_name["gemma-scope-2-4b-pt-res"].endswith("gemma_3, which SAE Lens converts")
    assert by_name["gemma-scope-2b-pt-res"].endswith("gemma_2, which SAE Lens converts; .npz files: --sae-allow-pickle")


def test_an_unknown_release_is_told_with_the_nearest_name(capsys):
    """The same message and exit code as pytest gives."""
    assert main.main(["list", "gpt2-small-res-jp"]) == 4
    assert "gpt2-small-res-jb" in capsys.readouterr().err


@pytest.mark.slow
def test_it_imports_nothing_heavy():
    """Listing, as `python -m sae_checks`, pays for no torch, SAE Lens or NumPy."""
    script = """
import runpy, sys
sys.argv = ["sae-checks", "list", "demo"]
try:
    runpy.run_module("sae_checks")
except SystemExit as end:
    assert not end.code
heavy = {"torch", "sae_lens", "transformers", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "blocks.0.hook_resid_pre" in done.stdout
