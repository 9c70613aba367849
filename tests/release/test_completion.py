"""What a shell offers behind `sae-checks list` and `--sae-release=`: releases and folders."""

import os
import subprocess
import sys

import pytest

from sae_checks.release import completion, registry


def test_releases_that_begin_so():
    """Embedded and registered ones, in their order; nothing for what begins no name."""
    assert completion.release_names("demo") == ["demo", "demo-broken"]
    assert set(completion.release_names("gpt2-small-res-jb")) <= set(registry.names())
    assert "gpt2-small-res-jb" in completion.release_names("gpt2-small")
    assert completion.release_names("no such name") == []


def test_folders_too(tmp_path, monkeypatch):
    """Those that begin so, hidden ones only when asked for, files never; a folder that is not there offers nothing."""
    for name in ("saes-1", "saes-2", ".saes", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "saes.txt").touch()
    assert completion.release_names(f"{tmp_path}/saes") == [f"{tmp_path}/saes-1/", f"{tmp_path}/saes-2/"]
    assert completion.release_names(f"{tmp_path}/.s") == [f"{tmp_path}/.saes/"]
    assert completion.release_names(f"{tmp_path}/none/s") == []
    monkeypatch.chdir(tmp_path)
    assert completion.release_names("oth") == ["other/"]
    assert [name for name in completion.release_names("") if name.endswith("/")] == ["other/", "saes-1/", "saes-2/"]


def offered(tmp_path, module, line):
    """What the shell is told for *line*, by argcomplete's own protocol."""
    told = tmp_path / "told"
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        "_ARGCOMPLETE": "3" if module else "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(told),
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n=",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    subprocess.run([sys.executable, "-m", module], cwd=tmp_path, env=env, capture_output=True, check=False)
    return told.read_text().replace("\x0b", "\n").split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line"),
    [("sae_checks", "python -m sae_checks list dem"), ("pytest", "python -m pytest --sae-release dem")],
)
def test_the_shell_is_told(tmp_path, module, line):
    """By the command and by pytest, in a folder that knows nothing of the project."""
    assert {"demo", "demo-broken"} <= {name.rstrip() for name in offered(tmp_path, module, line)}


@pytest.mark.slow
def test_commands_are_offered(tmp_path):
    """`sae-checks` itself: what it can do."""
    assert {"list", "merge", "plan"} <= set(offered(tmp_path, "sae_checks", "python -m sae_checks "))
