"""The package as a user has it: built, and installed into an environment where the checkout is not."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(to: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the checkout in *to*, the wheel made from the sdist; $SAE_CHECKS_DIST if they are there."""
    made = os.environ.get("SAE_CHECKS_DIST")
    if made is None:
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(to), str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    folder = to if made is None else ROOT / made
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def environment(folder: Path, wheel: Path) -> Path:
    """
    An environment with *wheel* installed; its Python.

    Torch and the like are those of this run, by links: installing them again would take minutes and a network.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (own,) = (folder / "lib").glob("python*/site-packages")
    for place in map(Path, sys.path):
        for entry in place.iterdir() if place.name == "site-packages" else ():
            is_ours = entry.name.startswith(("sae_checks", "_editable_impl_sae_checks"))
            if not is_ours and entry.suffix not in (".pth", ".egg-link") and not (own / entry.name).exists():
                (own / entry.name).symlink_to(entry)
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return python
