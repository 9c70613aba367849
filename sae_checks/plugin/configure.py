"""
Options in, a settled plan out.

Anything wrong with what was asked ends the run here, with exit code 4. What the Hub does not give is no mistake of
whoever asked: it becomes an error of the collection, so that JUnit has it.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import pytest

from sae_checks import checks, errors
from sae_checks.corpora import files
from sae_checks.judging import thresholds
from sae_checks.plan import flags, options, plan
from sae_checks.plugin.reporting import Reporter
from sae_checks.plugin.state import ASKED, GATE, GATE_ID, HUB_PROBLEM, LEDGER, Asked, Cell, Ledger, compared
from sae_checks.release import completion, hub, release


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
    config.stash[ASKED] = asked
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
    asked = config.stash.get(ASKED, None)
    if asked is None:
        return []
    settled = asked.plan
    size = f"{settled.options.n_sequences} sequences of at most {settled.n_context_tokens} tokens"
    lambada = f"Lambada {settled.lambada.name}" if settled.lambada is not None else "no Lambada"
    models = ", ".join(model.source.name for model in settled.models)
    cbt = f"Children's Book Test {settled.cbt.name}" if settled.cbt is not None else "no Children's Book Test"
    return [
        f"sae-checks: {settled.release.name}, {len(settled.release.saes)} SAE(s), {size}",
        *_pinned(settled.release, offline=settled.options.offline),
        f"sae-checks: model {models}, {lambada}, {cbt}",
        f"sae-checks: text {settled.corpus.name} ({settled.corpus_reason})",
        *_compared_with(asked),
    ]


def _compared_with(asked: Asked) -> list[str]:
    """Which run is the baseline, and which checks are not compared with it."""
    if asked.baseline is None:
        return []
    with_margin = {compared(cell)[1] for cell in asked.limits if cell[1] == checks.NO_REGRESSION.name}
    asked_of = {name for _, name in asked.limits}
    judged = [check.name for check in checks.CHECKS if check.name in asked_of and not check.is_exact]
    without = [name for name in judged if name not in with_margin]
    told = f"; not compared, for want of a margin: {', '.join(without)}" if without else ""
    return [f"sae-checks: baseline {asked.baseline.source}, the run of {asked.baseline.started}{told}"]


def _pinned(found: release.Release, *, offline: bool) -> list[str]:
    """Which commit a release of the Hub is judged at, and whether the Hub was asked."""
    if found.revision is None:
        return []
    how = "offline, as the cache has it" if hub.is_offline(asked=offline) else "as the Hub has it now"
    return [f"sae-checks: SAEs {found.source}@{found.revision} ({how})"]


def _asked(config: pytest.Config) -> Asked | errors.HubError | None:
    if hasattr(config, "workerinput"):  # an xdist worker: the controller has settled everything
        packed = config.workerinput.get("sae_checks")
        if packed is None:
            return None
        asked: Asked | errors.HubError = pickle.loads(packed)  # noqa: S301 -- from our own controller
        return asked
    raw = flags.gather(config.getoption, config.getini)
    if not raw["sae_release"]:
        given = [spec.flag for spec in flags.SPECS if config.getoption(spec.key)]
        if given:
            raise errors.release_not_given(given)
        return None
    return settle(options.parse(raw))


def settle(asked: options.Options) -> Asked:
    """
    Everything about *asked* that can be settled without measuring, checked.

    Raises:
        UsageError: it cannot be done as asked.
        HubError: the Hub does not tell what is needed to know that.
    """
    found = release.resolve(
        asked.release,
        patterns=asked.sae_ids,
        revision=asked.revision,
        offline=asked.offline,
        allow_pickle=asked.allow_pickle,
    )
    for pattern in asked.explain:
        if not release.matching(found.sae_ids, [pattern]):
            raise errors.nothing_to_explain(pattern, found.sae_ids)
    limits = thresholds.load(asked.thresholds)
    settled = plan.make(asked, found)
    golden = {sae_id: known for sae_id in found.sae_ids if (known := limits.golden(found.name, sae_id)) is not None}
    by_cell = _limits(settled, limits)
    by_cell |= {(sae_id, checks.GOLDEN.name): thresholds.limit_of(known) for sae_id, known in golden.items()}
    if any(limit is not None and limit.measure in checks.CE_LOSS.ablated for limit in by_cell.values()):
        settled = replace(settled, options=replace(settled.options, ablation=True))
    if settled.corpus.path is not None:
        files.read_documents(settled.corpus.path)
    if settled.lambada is not None and settled.lambada.path is not None:
        files.read_passages(settled.lambada.path)
    if settled.cbt is not None and settled.cbt.path is not None:
        files.read_queries(settled.cbt.path)
    _check_device(asked.device)
    if asked.history is not None:
        from sae_checks.comparing.history import store  # here: it reads records, and with them all of the judging wing

        store.prepare(asked.history)
    compared_with = None
    if asked.baseline is not None:
        from sae_checks.comparing import baseline  # here: it reads records, and with them all of the judging wing

        compared_with = baseline.load(asked.baseline, asked.record)
        if not set(compared_with.conditions.sae_ids) & set(found.sae_ids):
            raise errors.nothing_in_common(asked.baseline, compared_with.conditions.sae_ids, found.sae_ids)
        by_cell |= _comparisons(settled, limits, by_cell)
    return Asked(plan=settled, limits=by_cell, golden=golden, baseline=compared_with)


def _limits(settled: plan.Plan, limits: thresholds.Thresholds) -> dict[Cell, thresholds.Limit | None]:
    """The limit of every check of every SAE and stack; golden prompts bring their own."""
    found = settled.release
    subjects = {"sae": found.sae_ids, "stack": tuple(stack.stack_id for stack in settled.stacks)}
    by_cell: dict[Cell, thresholds.Limit | None] = {}
    asked_of = [check for check in checks.CHECKS if not check.is_study or settled.options.n_study_sequences]
    for check in asked_of:
        for subject in subjects[check.of] if not check.is_exact else ():
            look_up = limits.find if check.is_optional else limits.limit
            by_cell[subject, check.name] = look_up(found.name, subject, check.name)
    if checks.DISTINCT in asked_of and len(found.sae_ids) > 1:
        by_cell |= {(sae_id, checks.DISTINCT.name): thresholds.no_copies() for sae_id in found.sae_ids}
    return by_cell


def _comparisons(
    settled: plan.Plan, limits: thresholds.Thresholds, by_cell: dict[Cell, thresholds.Limit | None]
) -> dict[Cell, thresholds.Limit | None]:
    """How far every check may be from the baseline that has a limit and, for the same measure, a margin."""
    found: dict[Cell, thresholds.Limit | None] = {}
    for subject in settled.subjects:
        for check in checks.CHECKS:
            limit = by_cell.get((subject, check.name))
            margin = limits.margin(settled.release.name, subject, check.name)
            if limit is not None and margin is not None and limit.measure == margin.measure:
                found[f"{subject}-{check.name}", checks.NO_REGRESSION.name] = margin.limit(limit)
    return found


def _check_device(device: str) -> None:
    if device in ("auto", "cpu"):
        return
    import torch  # only here: an accelerator was asked for, and only torch knows

    available = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not available:
        raise errors.device_unavailable(device)
