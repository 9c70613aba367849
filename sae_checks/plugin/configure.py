"""
Options in, a settled plan out.

Anything wrong with what was asked ends the run here, with exit code 4. What the Hub does not give is no mistake of
whoever asked: it becomes an error of the collection, so that JUnit has it.
"""

from __future__ import annotations

import os
import pickle

import pytest

from sae_checks import checks, errors
from sae_checks.plan import flags, options
from sae_checks.plugin.reporting import Reporter
from sae_checks.plugin.state import GATE, GATE_ID, HUB_PROBLEM, LEDGER, REQUEST, Ledger
from sae_checks.release import completion, hub, release
from sae_checks.run.settle import Request, compared, settle


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sae-checks", "sae-checks: judge a release of sparse autoencoders")
    for spec in flags.SPECS:
        text = spec.help + (f" (default: {spec.default})" if spec.default is not None else "")
        if spec.repeatable:
            group.addoption(spec.flag, action="append", dest=spec.key, metavar=spec.metavar, help=text)
            parser.addini(spec.key, help=f"{spec.flag}: {text}", type="linelist")
        elif spec.is_switch:
            group.addoption(spec.flag, action="store_true", default=None, dest=spec.key, help=text)
            parser.addini(spec.key, help=f"{spec.flag}: {text}", type="bool", default=False)
        else:
            group.addoption(spec.flag, dest=spec.key, metavar=spec.metavar, help=text)
            parser.addini(spec.key, help=f"{spec.flag}: {text}", type="string")
    if "_ARGCOMPLETE" in os.environ and hasattr(parser, "optparser"):  # a shell asks what could stand behind an option
        completion.offer_releases(parser.optparser, "sae_release")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sae_check(name): a check of the gate; sae-checks judges its SAE")
    try:
        asked = _asked(config)
    except (errors.UsageError, errors.HubNameError) as problem:
        raise pytest.UsageError(str(problem)) from None
    except errors.HubError as problem:
        asked = problem
    if asked is None:
        return
    if isinstance(asked, errors.HubError):
        config.stash[HUB_PROBLEM] = asked
        config.args = [str(GATE)]  # whatever paths were given: `collection.Unsettled` takes the gate's place
        config.option.continue_on_collection_errors = True  # exit code 1 as for any error, and not 2, "interrupted"
        return
    # behind those of the user's ini file, so that it wins over an "error" there: a smoke run is to warn, not to fail
    config.addinivalue_line("filterwarnings", "default::sae_checks.plugin.fixtures.InconclusiveWarning")
    config.stash[REQUEST] = asked
    config.stash[LEDGER] = Ledger()
    config.pluginmanager.register(Reporter(config), "sae_checks.reporter")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:  # no path was given: judge the release, nothing else
        config.args = [str(GATE)]
        config.args_source = pytest.Config.ArgsSource.ARGS
    config.args = [_placed(config, arg) for arg in config.args]


def _placed(config: pytest.Config, arg: str) -> str:
    """A node id of the gate, pasted from pytest's own output, as the path that it stands for."""
    if not arg.startswith(GATE_ID) or (config.invocation_params.dir / arg.partition("::")[0]).exists():
        return arg
    return str(GATE / arg.removeprefix(GATE_ID))


def pytest_report_header(config: pytest.Config) -> list[str]:
    asked = config.stash.get(REQUEST, None)
    if asked is None:
        return []
    settled = asked.plan
    size = f"{settled.options.n_sequences} sequences of at most {settled.n_context_tokens} tokens"
    lambada = f"Lambada {settled.lambada.name}" if settled.lambada is not None else "no Lambada"
    models = ", ".join(model.source.name for model in settled.models)
    cbt = f"Children's Book Test {settled.cbt.name}" if settled.cbt is not None else "no Children's Book Test"
    return [
        f"sae-checks: {settled.release.name}, {len(settled.release.saes)} SAE(s), {size}",
        *_pinned(settled.release),
        f"sae-checks: model {models}, {lambada}, {cbt}",
        f"sae-checks: text {settled.corpus.name} ({settled.corpus_reason})",
        *_compared_with(asked),
    ]


def _compared_with(asked: Request) -> list[str]:
    """Which run is the baseline, and which checks are not compared with it."""
    if asked.baseline is None:
        return []
    with_margin = {compared(cell)[1] for cell in asked.limits if cell[1] == checks.NO_REGRESSION.name}
    asked_of = {name for _, name in asked.limits}
    judged = [check.name for check in checks.CHECKS if check.name in asked_of and not check.is_exact]
    without = [name for name in judged if name not in with_margin]
    told = f"; not compared, for want of a margin: {', '.join(without)}" if without else ""
    return [f"sae-checks: baseline {asked.baseline.source}, the run of {asked.baseline.started}{told}"]


def _pinned(found: release.Release) -> list[str]:
    """Which commit a release of the Hub is judged at, and whether the Hub was asked."""
    if found.revision is None:
        return []
    how = "offline, as the cache has it" if hub.is_offline() else "as the Hub has it now"
    return [f"sae-checks: SAEs {found.source}@{found.revision} ({how})"]


def _asked(config: pytest.Config) -> Request | errors.HubError | None:
    if hasattr(config, "workerinput"):  # an xdist worker: the controller has settled everything
        packed = config.workerinput.get("sae_checks")
        if packed is None:
            return None
        asked: Request | errors.HubError = pickle.loads(packed)  # noqa: S301 -- from our own controller
        return asked
    raw = flags.gather(config.getoption, config.getini)
    if not raw["sae_release"]:
        given = [spec.flag for spec in flags.SPECS if config.getoption(spec.key)]
        if given:
            raise errors.release_not_given(given)
        return None
    return settle(options.parse(raw))
