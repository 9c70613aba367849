"""Refuses names that begin like an option of this project and are none, and says what else there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import pytest

from sae_checks import checks, errors
from sae_checks.plan import flags
from sae_checks.plugin.state import REQUEST
from sae_checks.release.natural_order import natural_key
from sae_checks.run.settle import measured_cell


@pytest.hookimpl(trylast=True)  # WHY: a conftest.py may add an option that begins with --sae-, and is loaded by then
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Refuse an unknown option --sae-...; argparse says only that it is unrecognized."""
    if hasattr(early_config, "workerinput"):
        return
    _, unknown = parser.parse_known_and_unknown_args(args)
    given = [arg.partition("=")[0] for arg in unknown if arg.startswith("--sae-")]
    _refuse(given, "the command line", [spec.flag for spec in flags.SPECS], flags.REMOVED)


def refuse_ini_keys(config: pytest.Config) -> None:
    """
    Refuse a key sae_... of the ini file that no plugin knows; pytest itself only warns.

    Raises:
        UsageError: there is one.
    """
    found = getattr(config, "_inicfg", {})  # WHY private: pytest has no public list of the keys that a file has
    given = [key for key in sorted(found) if key.startswith("sae_") and not _is_known(config, key)]
    removed = {flags.key_of(flag): flags.key_of(instead) for flag, instead in flags.REMOVED.items()}
    _refuse(given, "the ini file", [spec.key for spec in flags.SPECS], removed)


def nothing_selected(config: pytest.Config) -> str:
    """The message of a run whose paths, -k and -m leave no check; it lists checks and SAEs."""
    request = config.stash[REQUEST]
    own = {measured_cell(cell) for cell in request.limits if cell in request.own}
    names = [check.name for check in checks.CHECKS if any(check.name == name for _, name in own)]
    sae_ids = sorted({subject for subject, _ in own} & set(request.plan.release.sae_ids), key=natural_key)
    keyword, marker = config.getoption("keyword"), config.getoption("markexpr")
    asked = [f"{flag} {value!r}" for flag, value in (("-k", keyword), ("-m", marker)) if value]
    asked = asked or [str(arg) for arg in config.args]
    words = set(re.findall(r"[^\s()]+", keyword)) - {"and", "or", "not"}
    return errors.nothing_selected(asked, names, sae_ids, _nearest(words, names), _nearest(words, sae_ids))


def _nearest(words: Iterable[str], names: Sequence[str], *, least: float = 0.6) -> str:
    """The first of *names* that is like one of *words*, by a ratio of *least* or more; empty: none is."""
    return next((near[0] for word in sorted(words) if (near := get_close_matches(word, names, 1, least))), "")


def _is_known(config: pytest.Config, key: str) -> bool:
    try:
        config.getini(key)
    except ValueError:  # unknown configuration value
        return False
    return True


def _refuse(given: Iterable[str], where: str, known: Sequence[str], removed: dict[str, str]) -> None:
    """Raise UsageError for the first of *given*, which are no options."""
    for name in given:
        if name in removed:
            raise pytest.UsageError(str(errors.option_removed(name, removed[name])))
        raise pytest.UsageError(str(errors.unknown_option(name, where, _nearest([name], known, least=0.75))))
