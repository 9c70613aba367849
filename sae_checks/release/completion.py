"""Names that a shell may offer for a release, where argcomplete is installed (the extra `completion`). Ground."""

from __future__ import annotations

import argparse
import os

from sae_checks.release import registry
from sae_checks.release.release import EMBEDDED_RELEASES


def release_names(prefix: str, **_rest: object) -> list[str]:
    """Embedded and registered releases, and folders, that begin with *prefix*."""
    names = [name for name in (*EMBEDDED_RELEASES, *registry.names()) if name.startswith(prefix)]
    folder, slash, start = prefix.rpartition("/")
    try:
        folders = sorted(entry.name for entry in os.scandir(f"{folder}{slash}" or ".") if entry.is_dir())
    except OSError:  # no such folder yet
        folders = []
    is_asked_for = [name for name in folders if name.startswith(start) and (start or not name.startswith("."))]
    return [*names, *(f"{folder}{slash}{name}/" for name in is_asked_for)]


def offers_releases(parser: argparse.ArgumentParser, dest: str) -> None:
    """Let the argument *dest* of *parser* be completed by the names of releases."""
    for action in parser._actions:  # noqa: SLF001 -- pytest keeps what add_argument returned to itself
        if action.dest == dest:
            action.completer = release_names  # type: ignore[attr-defined]  # argcomplete's own attribute


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, and end, if it is a shell that asks."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)
