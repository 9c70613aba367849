"""Shell completion of release names, if argcomplete is installed (the extra `completion`)."""

from __future__ import annotations

import argparse
import os

from sae_checks.release import registry
from sae_checks.release.release import EMBEDDED_RELEASES


def release_names(prefix: str, **_rest: object) -> list[str]:
    """Names of embedded and registered releases, and of folders, that begin with *prefix*."""
    names = [name for name in (*EMBEDDED_RELEASES, *registry.names()) if name.startswith(prefix)]
    folder, slash, start = prefix.rpartition("/")
    try:
        folders = sorted(entry.name for entry in os.scandir(f"{folder}{slash}" or ".") if entry.is_dir())
    except OSError:  # no such folder yet
        folders = []
    matching = [name for name in folders if name.startswith(start) and (start or not name.startswith("."))]
    return [*names, *(f"{folder}{slash}{name}/" for name in matching)]


def offer_releases(parser: argparse.ArgumentParser, dest: str) -> None:
    """Complete the argument *dest* of *parser* with names of releases."""
    for action in parser._actions:  # noqa: SLF001 -- pytest does not return the action that add_argument makes
        if action.dest == dest:
            action.completer = release_names  # type: ignore[attr-defined]  # argcomplete reads this attribute


def complete(parser: argparse.ArgumentParser) -> None:
    """Print completions and exit if a shell asks for them; otherwise do nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)
