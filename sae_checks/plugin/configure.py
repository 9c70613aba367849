"""
Declares the options, settles the request when pytest starts, and prints the header.

A wrong option ends the run here with exit code 4. So does a Hub that does not give the release or the model.
"""

from __future__ import annotations

import os
import pickle

import pytest

from sae_checks import checks, errors
from sae_checks.plan import flags, named_model, options
from sae_checks.plugin import misspelt, outputs
from sae_checks.plugin.reporting import Reporter
from sae_checks.plugin.state import GATE, GATE_ID, REQUEST, RUN_STATE, RunState
from sae_checks.release import completion, hub, release
from sae_checks.run import who_chose
from sae_checks.run.settle import Request, measured_cell, pin_texts, settle


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add every option of `flags`, on the command line and in the ini file."""
    groups = {group: parser.getgroup(f"sae-checks {group}", f"sae-checks: {group}") for group in flags.GROUPS}
    for spec in flags.SPECS:
        group = groups[spec.group]
        text = spec.help + (f" (default: {spec.default})" if spec.default is not None else "")
        if spec.repeatable:
            group.addoption(spec.flag, action="append", dest=spec.key, metavar=spec.metavar, help=text)
            parser.addini(spec.key, help=f"as {spec.flag}", type="linelist")
        elif spec.is_switch:
            group.addoption(spec.flag, action="store_true", default=None, dest=spec.key, help=text)
            parser.addini(spec.key, help=f"as {spec.flag}", type="bool", default=False)
        else:
            group.addoption(spec.flag, dest=spec.key, metavar=spec.metavar, help=text)
            parser.addini(spec.key, help=f"as {spec.flag}", type="string")
    if "_ARGCOMPLETE" in os.environ and hasattr(parser, "optparser"):  # WHY: a shell completes an option
        completion.offer_releases(parser.optparser, "sae_release")


def pytest_configure(config: pytest.Config) -> None:
    """Settle the request, and select the gate if no path is given."""
    config.addinivalue_line("markers", "sae_check(name): a check of the gate; sae-checks judges its SAE")
    try:
        request = _settled_request(config)
    except (errors.UsageError, errors.HubError) as problem:
        raise pytest.UsageError(str(problem)) from None
    if request is None:
        return
    config.stash[REQUEST] = request
    config.stash[RUN_STATE] = RunState()
    config.pluginmanager.register(Reporter(config), "sae_checks.reporter")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:  # WHY: without a path only the release is judged
        config.args = [str(GATE)]
        config.args_source = pytest.Config.ArgsSource.ARGS
    config.args = [_gate_path(config, arg) for arg in config.args]


def _gate_path(config: pytest.Config, arg: str) -> str:
    """The path of the gate's file if *arg* is a node id of the gate, as pytest prints it; else *arg*."""
    if not arg.startswith(GATE_ID) or (config.invocation_params.dir / arg.partition("::")[0]).exists():
        return arg
    return str(GATE / arg.removeprefix(GATE_ID))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The header lines: release, model, texts, limits and baseline."""
    request = config.stash.get(REQUEST, None)
    if request is None or hasattr(config, "workerinput"):  # WHY: a worker prints none, and would ask the Hub for it
        return []
    plan = request.plan
    size = f"up to {plan.options.n_sequences} sequences of at most {plan.n_context_tokens} tokens"
    lambada = f"Lambada {plan.lambada.name}" if plan.lambada is not None else "no Lambada"
    models = ", ".join(model.source.name for model in plan.models)
    cbt = f"Children's Book Test {plan.cbt.name}" if plan.cbt is not None else "no Children's Book Test"
    return [
        f"sae-checks: {plan.release.name}, {len(plan.release.saes)} SAE(s), {size}",
        *_commit_line(plan.release),
        f"sae-checks: model {models}, {lambada}, {cbt}",
        *(f"sae-checks: warning: {text}" for text in named_model.warnings(plan)),
        f"sae-checks: text {plan.corpus.name}",
        f"sae-checks: chosen: {who_chose.sentence(request)}",
        *_limits_lines(request),
        *_baseline_line(request),
        *outputs.header_line(config),
    ]


def _limits_lines(request: Request) -> list[str]:
    """The header lines that say which file limits how many checks of this run, and which tables match nothing."""
    compared, own_cells = checks.NO_REGRESSION.name, request.own
    limits = [limits for cell, limits in request.limits.items() if cell in own_cells and cell[1] != compared]
    files = [limit.file for of_cell in limits for limit in of_cell[:1] if limit.file is not None]
    own = request.own_limits
    if own is None:
        return [f"sae-checks: limits: shipped thresholds.toml for {len(files)} checks"]
    n = files.count(own.file)
    lines = [f"sae-checks: limits: {own.file} for {n} of {len(files)} checks; shipped for {len(files) - n}"]
    if own.unmatched:
        nothing = f"{len(own.unmatched)} of {own.n_tables} tables of {own.file} match nothing"
        lines.append(f"sae-checks: limits: {nothing}: {errors.listed(own.unmatched, n_most=3)}")
    return lines


def _baseline_line(request: Request) -> list[str]:
    """The header line that names the baseline and the checks that are not compared with it; none without a baseline."""
    if request.baseline is None:
        return []
    with_margin = {measured_cell(cell)[1] for cell in request.limits if cell[1] == checks.NO_REGRESSION.name}
    in_request = {name for _, name in request.limits}
    judged = [check.name for check in checks.CHECKS if check.name in in_request and not check.is_exact]
    without = [name for name in judged if name not in with_margin]
    text = f"; not compared, because they have no margin: {', '.join(without)}" if without else ""
    found = request.baseline
    accepted = "" if found.accepted is None else f"; accepted: {found.accepted}"
    where = "" if found.where == found.source else f" in {found.where}"
    return [f"sae-checks: baseline {found.source}, the run of {found.started} ({found.age}){where}{accepted}{text}"]


def _commit_line(found: release.Release) -> list[str]:
    """The header line that names the commit of a release on the Hub; none for a local release."""
    if found.revision is None:
        return []
    how = "offline, from the cache" if hub.is_offline() else "current on the Hub"
    return [f"sae-checks: SAEs {found.source}@{found.revision} ({how})"]


def _settled_request(config: pytest.Config) -> Request | None:
    """The settled request; on an xdist worker that of the controller. None: no release is given."""
    if hasattr(config, "workerinput"):
        packed = config.workerinput.get("sae_checks")
        if packed is None:
            return None
        settled: Request = pickle.loads(packed)  # noqa: S301 -- from our own controller
        return settled
    misspelt.refuse_ini_keys(config)
    raw = flags.gather(config.getoption, config.getini)
    if not raw["sae_release"]:
        given = [spec.flag for spec in flags.SPECS if config.getoption(spec.key)]
        if given:
            raise errors.release_not_given(given)
        return None
    asked = options.parse(raw)
    settled = settle(asked)
    if outputs.is_under_xdist(config) and not config.getoption("collectonly"):
        settled = pin_texts(settled, settled.limits)  # WHY: workers that each pin may see different commits
    if asked.out is not None and not config.getoption("collectonly"):
        outputs.prepare(config, asked.out)
    return settled
