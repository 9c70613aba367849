"""A request -> what will be judged: the plan, the limit of every check, the baseline. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sae_checks import checks, errors
from sae_checks.corpora import files
from sae_checks.judging import thresholds
from sae_checks.judging.limits import Limit, golden_limit, no_copies_limit
from sae_checks.plan import options, plan
from sae_checks.plan.golden_prompts import Golden
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.plan import Plan
from sae_checks.release import release

if TYPE_CHECKING:
    from sae_checks.comparing.baseline import Baseline

Cell = tuple[str, str]
"""(id of an SAE or a stack, check name); a comparison of that with the baseline is (SAE-CHECK, "no_regression")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run judges and by which limits, settled; the same in every process of the run."""

    plan: Plan
    limits: dict[Cell, Limit | None]
    """one for each check of each SAE and stack; None: the check is reported, and no limit is written for it."""
    golden: dict[str, Golden]
    """by SAE id."""
    baseline: Baseline | None = None
    """the earlier run that `no_regression` compares with."""

    @property
    def own(self) -> frozenset[Cell]:
        """The cells that this run judges: all, or those of its shard."""
        subjects = set(self.plan.subjects_of_shard)
        return frozenset(cell for cell in self.limits if measured_cell(cell)[0] in subjects)


def measured_cell(cell: Cell) -> Cell:
    """The cell that is measured for *cell*: for a comparison with the baseline the check it compares, else itself."""
    if cell[1] != checks.NO_REGRESSION.name:
        return cell
    subject, _, check = cell[0].rpartition("-")  # an id may contain a hyphen, the name of a check does not
    return subject, check


def settle(asked: options.Options, found: release.Release | None = None, model: ModelSource | None = None) -> Request:
    """
    Settle and check everything about *asked* that needs no measuring.

    *found* and *model* are the SAEs and the model that the caller holds in memory, if it does.

    Raises:
        UsageError: it cannot be done as asked.
        HubError: the Hub does not tell what is needed to know that.
    """
    found = found or release.resolve(
        asked.release,
        patterns=asked.sae_ids,
        allow_pickle=asked.allow_pickle,
    )
    for pattern in asked.explain:
        if not release.matching(found.sae_ids, [pattern]):
            raise errors.nothing_to_explain(pattern, found.sae_ids)
    limits = thresholds.load(asked.thresholds)
    settled = plan.make(asked, found, model)
    golden = {sae_id: known for sae_id in found.sae_ids if (known := limits.golden(found.name, sae_id)) is not None}
    by_cell = _limits(settled, limits)
    by_cell |= {(sae_id, checks.GOLDEN.name): golden_limit(known) for sae_id, known in golden.items()}
    if any(limit is not None and limit.measure in checks.CE_LOSS.ablated for limit in by_cell.values()):
        settled = replace(settled, measures_ablation=True)
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
    return Request(plan=settled, limits=by_cell, golden=golden, baseline=compared_with)


def _limits(settled: plan.Plan, limits: thresholds.Thresholds) -> dict[Cell, Limit | None]:
    """The limit of every check of every SAE and stack; golden prompts bring their own."""
    found = settled.release
    subjects = {"sae": found.sae_ids, "stack": tuple(stack.stack_id for stack in settled.stacks)}
    by_cell: dict[Cell, Limit | None] = {}
    asked_of = [check for check in checks.CHECKS if not check.is_study or settled.options.n_study_sequences]
    for check in asked_of:
        for subject in subjects[check.of] if not check.is_exact else ():
            look_up = limits.find if check.is_optional else limits.limit
            by_cell[subject, check.name] = look_up(found.name, subject, check.name)
    if checks.DISTINCT in asked_of and len(found.sae_ids) > 1:
        by_cell |= {(sae_id, checks.DISTINCT.name): no_copies_limit() for sae_id in found.sae_ids}
    return by_cell


def _comparisons(
    settled: plan.Plan, limits: thresholds.Thresholds, by_cell: dict[Cell, Limit | None]
) -> dict[Cell, Limit | None]:
    """How far every check may be from the baseline that has a limit and, for the same measure, a margin."""
    found: dict[Cell, Limit | None] = {}
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
