"""How a run's work divides among its passes, as far as its plan tells: what the share of the run is computed from."""

from __future__ import annotations

from collections.abc import Collection

from sae_checks.plan.plan import Plan
from sae_checks.run.settle import Cell
from sae_checks.run.table import ROW_OF

_N_PASSAGE_TOKENS = 80  # of Lambada, on average
_N_QUERY_TOKENS = 10 * 40  # of the Children's Book Test: options times what follows the blank, and the passage
_N_SPLICES_PER_STUDY = 3


def planned_work(plan: Plan, cells: Collection[Cell]) -> dict[str, float]:
    """
    Work of each kind of pass that *cells* need, in tokens times runs of the model; a rough guess.

    A pass runs the model once, and then once per SAE. SAEs that leave early make it shorter.
    """
    options, saes = plan.options, dict[str, set[str]]()
    n_studies = 0
    for subject, check in cells:
        row = ROW_OF[check]
        if row.not_given(plan) is None:
            n_studies += row.is_study
            saes.setdefault("studies" if row.is_study else row.measured_by, set()).add(subject)
    n_tokens = {
        "text": options.n_sequences * plan.n_context_tokens * (2 if plan.measures_ablation else 1),
        "lambada": options.n_items * _N_PASSAGE_TOKENS,
        "cbt": options.n_queries * _N_QUERY_TOKENS,
    }
    work: dict[str, float] = {kind: n * (1 + len(saes[kind])) for kind, n in n_tokens.items() if kind in saes}
    if n_studies:
        n_of_study = options.n_study_sequences * plan.n_context_tokens
        work["studies"] = n_studies * n_of_study * _N_SPLICES_PER_STUDY
    return work
