"""What pip installs: whole, typed, found by pytest from any folder, and true in what it says of itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import yaml

import sae_checks

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(python, folder, *args):
    """*python* in *folder*, without what the outer run has put into the environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON"))}
    return subprocess.run(
        [str(python), *map(str, args)],
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_has_all_of_the_package(distributions):
    """Every file of the package that git has, limits and types with it; no test, no cache."""
    wheel, _ = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sae_checks").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == package | {"sae_checks/thresholds.toml"}
    assert {"sae_checks/py.typed", "sae_checks/record/record.schema.json", "sae_checks/demo/files/text.jsonl"} <= names


def test_the_sdist_can_be_built_and_tested(distributions):
    """It has what the tests and the build need; the wheel of this run was made from it."""
    _, sdist = distributions
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("pyproject.toml", "thresholds.toml", "conftest.py", "tests/conftest.py", "constraints.txt", "LICENSE"):
        assert name in names
    for name in ("action.yml", "SECURITY.md", "CITATION.cff", "mkdocs.yml", ".github/workflows/sae-gate.yml"):
        assert name in names
    assert not any("__pycache__" in name or name.startswith((".venv", "dist/")) for name in names)


def test_the_metadata_is_true(distributions):
    """Version, Python, entry point and extras are those of the source; only a Python that was tested is promised."""
    wheel, _ = distributions
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        told = Parser().parsestr(archive.read(f"{info}/METADATA").decode("utf-8"))
        entry_points = archive.read(f"{info}/entry_points.txt").decode("utf-8")
    assert told["Version"] == sae_checks.__version__
    assert told["Requires-Python"] == "<3.12,>=3.11"
    classified = {c.rpartition(" ")[2] for c in told.get_all("Classifier") if c.startswith("Programming Language")}
    assert classified == {"3.11"}
    assert sys.version_info[:2] == (3, 11), "what is promised is what is tested"
    assert set(told.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert "sae_checks.plugin = sae_checks.plugin" in entry_points, "the name is the module's, or it registers twice"
    assert "sae-checks = sae_checks.commands.main:main" in entry_points


def test_the_gate_runs_from_an_empty_folder(installed_python, tmp_path):
    """pip install, then one command: green, by the entry point, from what was installed."""
    done = run(installed_python, tmp_path, "-m", "pytest", "--sae-release", "demo", "-k", "ce_loss", "--sae-out=out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    told = json.loads((tmp_path / "out/record.json").read_text(encoding="utf-8"))
    assert told["software"]["sae-checks"] == sae_checks.__version__
    place = run(installed_python, tmp_path, "-c", "import sae_checks; print(sae_checks.__file__)").stdout.strip()
    assert Path(place).is_relative_to(installed_python.parent.parent)


def test_the_plugin_may_be_named_beside_its_entry_point(installed_python, tmp_path):
    """`-p` and a conftest's pytest_plugins are no second plugin, since the entry point has the module's own name."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sae_checks.plugin"]\n', encoding="utf-8")
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert True\n", encoding="utf-8")
    done = run(installed_python, tmp_path, "-m", "pytest", "-p", "sae_checks.plugin")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_commands_are_installed(installed_python, tmp_path):
    """sae-checks stands beside Python, and as a module."""
    script = subprocess.run(
        [installed_python.parent / "sae-checks", "list", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    module = run(installed_python, tmp_path, "-m", "sae_checks", "list", "demo")
    assert "blocks.2.hook_resid_pre" in script.stdout == module.stdout


def test_the_tests_pass_on_what_is_installed(installed_python, tmp_path):
    """A quick part of these tests, away from the checkout, on the package of the wheel."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\npythonpath = tests/support\n", encoding="utf-8")
    command = ("-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "tests/plan", "tests/record")
    done = run(installed_python, tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 50


def test_a_user_s_own_types_are_checked_against_ours(installed_python, tmp_path):
    """py.typed: mypy sees the installed package's types, and a wrong use of them."""
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\nfrom sae_checks.record import record\nn: int = record.read(Path('r.json')).wall_s\n",
        encoding="utf-8",
    )
    done = run(installed_python, tmp_path, "-m", "mypy", "--strict", "--follow-imports=silent", "own.py")
    assert "own.py:3: error: Incompatible types" in done.stdout, done.stdout + done.stderr
    assert "import-untyped" not in done.stdout


def test_the_citation_is_of_this_version():
    """CITATION.cff names the project and its licence as pyproject.toml does."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"], cited["license"]) == (PROJECT["name"], PROJECT["license"])
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]
