"""`sae-checks`: its help, `list`, `report`, and what is no record."""

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import replace

import builders
import histories
import pytest

from sae_checks.commands import main
from sae_checks.record import record
from sae_checks.release import registry


def test_the_saes_of_a_release(capsys):
    """One line per SAE with what its configuration says; above them what they share."""
    assert main.main(["list", "demo"]) == 0
    shared, head, *lines = capsys.readouterr().out.splitlines()
    assert shared == "5 SAEs; model: sae-checks-demo; training context: 64"
    assert head.split() == ["SAE", "architecture", "width", "L0", "hook"]
    assert [line.split()[0] for line in lines] == [
        *(f"blocks.{i}.hook_resid_pre" for i in range(3)),
        "blocks.3.hook_resid_post",
        "blocks.3.hook_resid_pre",
    ]
    assert all(line.split()[1:4] == ["standard", "512", "-"] for line in lines)


def test_saes_are_listed_as_people_count(tmp_path, capsys):
    """blocks.2 before blocks.10."""
    for layer in (10, 2, 1):
        builders.write_sae(tmp_path / f"blocks.{layer}")
    assert main.main(["list", str(tmp_path)]) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["blocks.1", "blocks.2", "blocks.10"]


@pytest.mark.parametrize("name", ["", *(command.name for command in main.COMMANDS)])
def test_help_fits_80_columns_and_has_an_example(name, capsys, monkeypatch):
    """Of `sae-checks`, a line per command; of a command, an example that it understands."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main.main([*filter(None, [name]), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    if not name:
        listed = [line.split(maxsplit=1) for line in lines if line.startswith("    ") and line[4] != " "]
        assert listed == [[command.name, command.summary] for command in main.COMMANDS]
        return
    _, command, *arguments = shlex.split(lines[-1])
    parser = argparse.ArgumentParser()
    own = next(each for each in main.COMMANDS if each.name == command == name)
    own.add(parser)
    parser.parse_args(arguments)


def test_without_a_command_the_help_is_printed(capsys):
    """Exit code 2, as with an option that is none."""
    assert main.main([]) == 2
    assert "sae-checks COMMAND --help" in capsys.readouterr().err


def test_a_folder_is_no_record_and_the_one_in_it_is_named(tmp_path, capsys):
    """Expected, got and try, whatever command it is given to."""
    for command in ("report", "explain", "calibrate", "compare", "export"):
        more = {"compare": [str(tmp_path)], "export": ["--format=bencher"]}.get(command, [])
        assert main.main([command, str(tmp_path), *more]) == 4
        told = capsys.readouterr().err
        assert f"{tmp_path} is not a run record" in told
        assert "Is a directory" in told
    (tmp_path / "record.json").write_text("{}")
    assert main.main(["report", str(tmp_path)]) == 4
    assert f"try:      {tmp_path / 'record.json'}" in capsys.readouterr().err


def test_a_report_in_each_format(tmp_path, capsys):
    """A page or a model card in a folder, a summary to standard output."""
    run = histories.run(histories.ce_loss())
    record.write(replace(run, options=(*run.options, ("profile", "full"))), tmp_path / "record.json")
    asked = ["report", str(tmp_path / "record.json"), f"--out={tmp_path / 'out'}"]
    assert main.main([*asked, "--format=summary"]) == 0
    assert capsys.readouterr().out.startswith("# demo")
    assert not (tmp_path / "out").exists()
    assert main.main([*asked, "--format=model-card"]) == 0
    assert [path.name for path in (tmp_path / "out").glob("*.md")] == ["model-card.md"]
    assert main.main(asked) == 0
    assert (tmp_path / "out" / "index.html").exists()


def test_only_those_that_match(capsys):
    """--sae-id narrows the list, and a pattern that matches nothing is exit code 4 with the message."""
    assert main.main(["list", "demo", "--sae-id", "blocks.2.*"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main.main(["list", "demo", "--sae-id", "nothing"]) == 4
    assert "matches no SAE" in capsys.readouterr().err


def test_a_broken_sae_is_listed_with_its_problem(tmp_path, capsys):
    """An SAE that cannot be used has its reason in its line; the others are listed as ever."""
    builders.write_sae(tmp_path / "good")
    broken = builders.write_sae(tmp_path / "broken")
    (broken / "cfg.json").write_text(json.dumps([]))
    assert main.main(["list", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
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
