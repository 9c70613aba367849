"""Turns options into a request: the plan, the limit of every check, and the baseline. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sae_checks import checks, errors
from sae_checks.corpora import files, rows
from sae_checks.judging import thresholds
from sae_checks.judging.limits import Limit, golden_limit, no_copies_limit
from sae_checks.judging.own_limits import OwnLimits, Subjects, match
from sae_checks.plan import plan, stacks
from sae_checks.plan.golden_prompts import Golden
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.options import Options
from sae_checks.plan.plan import Plan
from sae_checks.release import release
from sae_checks.release.release import Release
from sae_checks.run import enough

if TYPE_CHECKING:
    from sae_checks.comparing.baseline import Baseline

Cell = tuple[str, str]
"""
One test of the gate: the id of an SAE or a stack, and the name of a check.

The comparison of (SAE, CHECK) with the baseline is the cell (SAE-CHECK, "no_regression").
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run judges, and by which limits. Every process of a run has an equal one."""

    plan: Plan
    limits: dict[Cell, tuple[Limit, ...]]
    """of each check of each SAE and stack; empty: no limit is written, so the check is reported and not judged."""
    golden: dict[str, Golden]
    """golden prompts by SAE id; an SAE without any is absent."""
    default_limits: dict[str, tuple[Limit, ...]]
    """shipped default limits by check: what passes by a limit that allows more is shown as accepted."""
    own_limits: OwnLimits | None = None
    """the user's file of limits; None: only the shipped one is read."""
    baseline: Baseline | None = None
    """earlier run that `no_regression` compares with; None: nothing is compared."""

    @property
    def own(self) -> frozenset[Cell]:
        """The cells that this run judges: those of its shard (--sae-shard), or all."""
        subjects = set(self.plan.subjects_of_shard)
        return frozenset(cell for cell in self.limits if measured_cell(cell)[0] in subjects)


def pin_texts(request: Request, cells: Collection[Cell], *, times_saes: bool = False) -> Request:
    """
    Pin the datasets that *cells* need, and no other; a text that the Hub does not give is an error of these.

    Args:
        request: what the run judges.
        cells: that are selected.
        times_saes: whether SAEs are timed, which needs text.

    Raises:
        HubError: the Hub says that it has no such dataset, or denies it, and an option names it.
    """
    from sae_checks.run.table import ROW_OF  # WHY here: it imports all of judging

    rows = [ROW_OF[check] for _, check in set(map(measured_cell, cells))]
    needed = {row.source_option for row in rows if row.needs_text} | ({"--sae-corpus"} if times_saes else set())
    return replace(request, plan=plan.pin_texts(request.plan, needed))


def measured_cell(cell: Cell) -> Cell:
    """The cell that is measured for *cell*: for a comparison with the baseline the check it compares, else itself."""
    if cell[1] != checks.NO_REGRESSION.name:
        return cell
    subject, _, check = cell[0].rpartition("-")  # an id may contain a hyphen, the name of a check does not
    return subject, check


def settle(options: Options, found: Release | None = None, model: ModelSource | None = None) -> Request:
    """
    Turn options into a request, and check everything that can be checked before measuring.

    Args:
        options: what the user asks for.
        found: the release, if the caller has its SAEs in memory; None: it is found by its name.
        model: the model, if the caller has it in memory; None: the plan finds it.

    Raises:
        UsageError: the options cannot be followed.
        HubError: the Hub does not describe the release or the model.
    """
    found = found or release.resolve(
        options.release,
        patterns=options.sae_ids,
        allow_pickle=options.allow_pickle,
    )
    if options.name is not None:
        found = replace(found, name=options.name)
    for pattern in options.explain:
        if not release.matching(found.sae_ids, [pattern]):
            raise errors.nothing_to_explain(pattern, found.sae_ids)
    written = thresholds.load(options.thresholds)
    own_limits = match(written, found.name, _subjects(found))
    settled = plan.make(options, found, model)
    golden = {sae_id: known for sae_id in found.sae_ids if (known := written.golden(found.name, sae_id)) is not None}
    limits = _limits(settled, written)
    limits |= {(sae_id, checks.GOLDEN.name): (golden_limit(known),) for sae_id, known in golden.items()}
    if any(limit.measure in checks.CE_LOSS.ablated for of_cell in limits.values() for limit in of_cell):
        settled = replace(settled, measures_ablation=True)
    _check_files(settled)
    _check_device(options.device)
    if options.history is not None:
        from sae_checks.comparing.history import store  # WHY here: it reads records, which imports all of judging

        store.prepare(options.history)
    earlier = None
    if options.baseline is not None:
        from sae_checks.comparing import baseline, same_conditions  # WHY here: records import all of judging

        earlier = baseline.load(options, found.name)
        if not set(earlier.conditions.sae_ids) & set(found.sae_ids):
            raise errors.nothing_in_common(options.baseline, earlier.conditions.sae_ids, found.sae_ids)
        same_conditions.check(earlier, settled)
        limits |= _comparison_limits(settled, written, limits)
    return Request(
        plan=settled,
        limits=limits,
        golden=golden,
        default_limits={check.name: written.defaults(check.name) for check in checks.CHECKS},
        own_limits=own_limits,
        baseline=earlier,
    )


def _subjects(found: Release) -> Subjects:
    """Ids of the SAEs and of the stacks of the whole release, whatever --sae-id selects."""
    whole = found.ids_before_selection is None
    possible = [stack.stack_id for stack in stacks.of(found)] if whole else stacks.possible_ids()
    return {"sae": found.all_ids, "stack": tuple(possible)}


def _limits(settled: Plan, written: thresholds.Thresholds) -> dict[Cell, tuple[Limit, ...]]:
    """The limits of every check of every SAE and stack, except for the checks of golden prompts."""
    found = settled.release
    subjects = {"sae": found.sae_ids, "stack": tuple(stack.stack_id for stack in settled.stacks)}
    limits: dict[Cell, tuple[Limit, ...]] = {}
    in_plan = [check for check in checks.CHECKS if not check.is_study or settled.options.n_study_sequences]
    for check in in_plan:
        for subject in subjects[check.of] if not check.is_exact else ():
            look_up = written.find if check.is_optional else written.limits
            limits[subject, check.name] = look_up(found.name, subject, check.name)
    if checks.DISTINCT in in_plan and len(found.sae_ids) > 1:
        limits |= {(sae_id, checks.DISTINCT.name): (no_copies_limit(),) for sae_id in found.sae_ids}
    return limits


def _comparison_limits(
    settled: Plan, written: thresholds.Thresholds, limits: Mapping[Cell, tuple[Limit, ...]]
) -> dict[Cell, tuple[Limit, ...]]:
    """The limit of every comparison with the baseline: for each check that has a limit and a margin on one measure."""
    found: dict[Cell, tuple[Limit, ...]] = {}
    for subject in settled.subjects:
        for check in checks.CHECKS:
            of_check = limits.get((subject, check.name), ())
            margin = written.margin(settled.release.name, subject, check.name)
            if of_check and margin is not None and of_check[0].measure == margin.measure:
                found[f"{subject}-{check.name}", checks.NO_REGRESSION.name] = (margin.limit(of_check[0]),)
    return found


def _check_files(settled: Plan) -> None:
    """
    Read the corpus files of the plan, to refuse a wrong one before the model is loaded.

    Raises:
        UsageError: a file cannot be read, is not what its option takes, or has too few items to decide anything.
    """
    readers = {
        "text": (settled.corpus, files.read_documents),
        "lambada": (settled.lambada, files.read_passages),
        "cbt": (settled.cbt, files.read_queries),
    }
    for kind, (source, read) in readers.items():
        if source is None or source.path is None:
            continue
        found = read(source.path)
        is_packed = any(isinstance(row, rows.Pretokenised) for row in found)  # one row may hold several documents
        problem = None if is_packed else enough.too_few(kind, source.name, len(found), settled.options)
        if problem is not None:
            raise problem


def _check_device(device: str) -> None:
    """
    Check that torch has the accelerator *device*.

    Raises:
        UsageError: it has not.
    """
    if device in ("auto", "cpu"):
        return
    import torch  # WHY here: only torch knows, and only a request for an accelerator waits for its import

    available = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not available:
        raise errors.device_unavailable(device)
