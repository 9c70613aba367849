"""The rooms import one way: ground <- wings <- roof. Read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sae_checks

PACKAGE = Path(sae_checks.__file__).parent
WINGS = {
    "ground": ("errors", "checks", "fields", "losses", "provenance", "explanation", "diagnosis", "release", "plan"),
    "measuring": ("corpora", "model", "saes", "measuring"),
    "judging": ("judging", "record", "comparing", "report"),
    "roof": ("run", "plugin", "gate", "demo", "commands", "__main__"),
}
"""The rooms in the order of the data: a room imports the rooms before it, and never the other wing."""
WING_OF = {room: wing for wing, rooms in WINGS.items() for room in rooms}
ORDER = [room for rooms in WINGS.values() for room in rooms]
KNOW_PYTEST = ("plugin", "gate", "commands")  # commands: `sae-checks plan` asks pytest what it would collect
HEAVY = {"torch", "transformers", "sae_lens", "transformer_lens"}
SCRIPTS = {"demo/train_model.py", "demo/train_saes.py"}  # they made the demo and are run by hand, never imported
ASKING = {
    "run/settle.py",
    "release/converters.py",
}  # what they are asked only torch or SAE Lens knows, in rare runs


def imports(source):
    """(module, whether at module level) of every import in *source*; `from a import b` counts as a and a.b."""
    tree = ast.parse(source)
    within = {node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in within) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides its floor"
            yield from ((f"{node.module}.{alias.name}", node not in within) for alias in node.names)


def breaches(place, source):
    """What in *source*, the file at *place* in the package, goes against the floors."""
    room = place.partition("/")[0].removesuffix(".py")
    wing = WING_OF[room]
    for module, at_module_level in imports(source):
        first, *rest = module.split(".")
        if first == "sae_checks" and rest and rest[0] != "__version__":
            is_later = ORDER.index(rest[0]) > ORDER.index(room)
            if is_later or {wing, WING_OF[rest[0]]} == {"measuring", "judging"}:
                yield f"{place} imports {module}"
        exempt = place in SCRIPTS or (place in ASKING and not at_module_level)
        if first in ("pytest", "_pytest") and room not in KNOW_PYTEST:
            yield f"{place} imports {module}"
        if first in HEAVY and wing != "measuring" and not exempt:
            yield f"{place} imports {module}"


def test_the_imports_run_one_way():
    """No room imports a later one or the other wing, and only the measuring wing imports torch."""
    places = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    del places["__init__.py"]
    assert len(places) > 20
    assert [b for place, path in places.items() for b in breaches(place, path.read_text(encoding="utf-8"))] == []


def test_nothing_imports_the_scripts():
    """What made the demo is no part of a run: only the scripts import each other."""
    modules = {f"sae_checks.demo.{Path(script).stem}" for script in SCRIPTS}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() not in SCRIPTS:
            found = {module for module, _ in imports(path.read_text(encoding="utf-8"))}
            assert not any(module.startswith(tuple(modules)) for module in found), path


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("errors/options.py", "from sae_checks.judging import verdict"),
        ("losses.py", "import sae_checks.measuring.corpus_pass"),
        ("judging/corpus_readings.py", "from sae_checks.measuring.corpus_pass import measure_text"),
        ("judging/verdict.py", "from sae_checks.record.results import Record"),
        ("measuring/corpus_pass.py", "def f():\n    from sae_checks.judging import verdict"),
        ("release/release.py", "from sae_checks.plan import options"),
        ("report/terminal.py", "from sae_checks.plugin.state import REQUEST"),
        ("corpora/text.py", "import sae_checks.plugin"),
        ("release/release.py", "import torch"),
        ("plugin/state.py", "def f():\n    import torch.nn"),
        ("run/judge.py", "import pytest"),
        ("report/terminal.py", "from _pytest import terminal"),
        ("run/settle.py", "import torch"),
        ("release/converters.py", "from sae_lens import SAE"),
        ("gate/test_ce_loss.py", "from transformers import AutoModel"),
        ("judging/verdict.py", "class A:\n    def f(self):\n        from sae_lens import SAE"),
    ],
)
def test_a_planted_breach_is_found(place, source):
    """The test above goes red on every kind of breach, at module level and inside functions."""
    assert len(list(breaches(place, source))) == 1


@pytest.mark.parametrize(
    ("place", "source"),
    [
        (
            "judging/verdict.py",
            "import numpy\nfrom sae_checks.losses import Span\nfrom sae_checks import checks, __version__",
        ),
        ("measuring/corpus_pass.py", "import torch\nfrom sae_checks.model.interface import CleanPass"),
        ("run/judge.py", "from sae_checks import errors\nfrom sae_checks.measuring.local import X"),
        ("run/settle.py", "def f():\n    import torch"),
        ("release/converters.py", "def f():\n    from sae_lens import SAE"),
    ],
)
def test_what_is_allowed_is_not_found(place, source):
    """Imports along the floors are no breach."""
    assert list(breaches(place, source)) == []


@pytest.mark.slow
def test_the_plugin_imports_nothing_heavy():
    """Every pytest run of the environment imports the plugin: no torch, no NumPy, nothing that takes seconds."""
    script = (
        "import sys, sae_checks, sae_checks.plugin\n"
        "heavy = {'torch', 'numpy', 'scipy', 'sae_lens', 'transformers', 'transformer_lens', 'msgspec'}\n"
        "print(*heavy & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert ran.stdout.split() == []
