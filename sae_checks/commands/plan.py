"""
The command `sae-checks plan [--shards N] -- PYTEST-ARGUMENTS`: print shards, revision and cache key for a workflow.

It runs pytest --collect-only, so that ini files, PYTEST_ADDOPTS and -k have the same effect as in the run itself.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence

from sae_checks import errors
from sae_checks.plan.plan import Plan

_QUIETLY = ("--collect-only", "-qq", "-W", "ignore::pytest.PytestAssertRewriteWarning")
"""WHY the warning is ignored: here this package is imported before pytest."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to *parser*."""
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="at most N shards; default: 1")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="-- ARGUMENTS", help="pytest's, --sae-release=NAME among them"
    )


def run(asked: argparse.Namespace) -> int:
    """Print `key=value` lines for $GITHUB_OUTPUT, and pytest's output to stderr. Returns pytest's exit status, or 4."""
    import pytest

    from sae_checks.plugin import misspelt
    from sae_checks.plugin.state import REQUEST, RUN_STATE
    from sae_checks.run.settle import pin_texts

    class Planner:
        settled: Plan | None = None
        nothing_selected = ""

        @pytest.hookimpl(trylast=True)
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            request = session.config.stash.get(REQUEST, None)
            if request is not None:
                try:
                    self.settled = pin_texts(request, session.config.stash[RUN_STATE].selected).plan
                except errors.HubError as problem:
                    raise pytest.UsageError(str(problem)) from None
                self.nothing_selected = misspelt.nothing_selected(session.config)

    planner = Planner()
    arguments = asked.arguments[1:] if asked.arguments[:1] == ["--"] else asked.arguments
    try:
        if asked.shards < 1:
            raise errors.bad_option("--shards", str(asked.shards), "a whole number, at least 1", "4")
        with contextlib.redirect_stdout(sys.stderr):
            ended = int(pytest.main([*_QUIETLY, *arguments], plugins=[planner]))
        if ended == pytest.ExitCode.OK and planner.settled is None:
            raise errors.release_not_given(arguments)
        if ended == pytest.ExitCode.NO_TESTS_COLLECTED:
            sys.stderr.write(f"{planner.nothing_selected or errors.no_check_ran(arguments)}\n")
            return 4
        lines = [] if planner.settled is None else outputs(planner.settled, n_shards=asked.shards)
    except errors.UsageError as problem:
        sys.stderr.write(f"{problem}\n")
        return 4
    sys.stdout.write("".join(f"{line}\n" for line in lines if ended == 0))
    if ended == 0 and asked.shards > 1:
        sys.stderr.write(_next(arguments))
    return ended


def _next(arguments: Sequence[str]) -> str:
    """What a person types who runs the shards by hand."""
    return (
        "next, for each shard I of N:\n"
        f"  pytest {shlex.join(arguments)} --sae-shard=I/N --sae-out=shard-I\n"
        "then:\n"
        "  sae-checks merge shard-*/record.json --out record.json\n"
    )


def outputs(settled: Plan, *, n_shards: int) -> list[str]:
    """
    The lines: shards, the pinned release, and a key for a cache of files from the Hub, empty if there are none.

    Raises:
        UsageError: the release's name has more than one line.
    """
    release, asked = settled.release, settled.options.release
    name = asked if release.revision is None else asked.partition("@")[0]
    if not name.isprintable():
        raise errors.bad_option("--sae-release", name, "a name on one line", "demo")
    n = min(n_shards, len(release.saes))
    sources = (settled.corpus, settled.lambada, settled.cbt)
    fetched = [f"{release.source}@{release.revision}"] if release.revision is not None else []
    fetched += [model.source.name for model in settled.models if model.source.repo is not None]
    fetched += [source.name for source in sources if source is not None and source.dataset is not None]
    key = hashlib.sha256("\n".join(sorted(fetched)).encode()).hexdigest()[:20] if fetched else ""
    found = {
        "shards": json.dumps(list(range(1, n + 1))),
        "n-shards": str(n),
        "release": name,
        "revision": release.revision or "",
        "cache-key": key,
    }
    return [f"{key}={value}" for key, value in found.items()]
