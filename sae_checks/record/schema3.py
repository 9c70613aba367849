"""Records of schema 3, which sae-checks wrote before schema 4, as records of schema 4: a translation of names alone."""

from __future__ import annotations

from typing import Any

SCHEMA = 3
_BY_SUBJECT = {
    "curves": ("long_context", "curves"),
    "propagation": ("propagation", "downstream"),
    "flips": ("lambada", "changed_answers"),
    "choice_flips": ("cbt", "changed_choices"),
    "worst": ("ce_loss", "worst_sequences"),
    "explanations": ("ce_loss", "explanation"),
}
"""Key of schema 3, by SAE -> check whose result it belongs to, and its field there."""
_BY_CHECK = {"samples": "paired_sample", "stacks": "stack_steps"}
"""Key of schema 3, by SAE or stack and then by check -> field of that result."""
_ADDED = ("choice_flips", "explanations")
"""What early records of schema 3 do not have."""
_RENAMED = {
    "changed_answers": {"item": "item_index", "way": "change"},
    "changed_choices": {"query": "query_index", "way": "change", "instead": "chosen_instead"},
    "worst_sequences": {
        "document": "document_index",
        "mean_increase": "mean_increase_nats_per_token",
        "position": "first_position",
    },
    "stack_steps": {"measures": "estimates"},
    "curves": {"n": "n_sequences"},
    "paired_sample": {
        "version": "measures_version",
        "top": "numerators",
        "bottom": "denominators",
        "best": "ideal_value",
    },
}
"""Of the rows of a field, each old key and its new one."""
_OF_TOKEN = {
    "document": "document_index",
    "before": "preceding_text",
    "instead": "spliced_top_token",
    "probability_instead": "spliced_top_probability",
    "n_positions": "n_restored_positions",
    "sources": "restored_positions",
}
_OF_POSITION = {
    "length_ratio": "norm_ratio",
    "n_active": "n_active_latents",
    "n_taken_out": "n_ablated_latents",
    "all_out_nats": "all_ablated_recovered_nats",
    "latents": "ablated_latents",
    "why_none": "why_no_latents",
}

Json = dict[str, Any]  # Any: JSON's values; schema 4 checks them afterwards


def translate(old: Json) -> Json:
    """
    *old* as JSON values of schema 4. Unknown keys stay, so that the check of schema 4 refuses them.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: *old* is no record of schema 3.
    """
    rest = {**{key: {} for key in _ADDED}, **old}
    by_subject = {key: rest.pop(key) for key in _BY_SUBJECT}
    by_check = {key: rest.pop(key) for key in _BY_CHECK}
    if not all(isinstance(value, dict) for value in (*by_subject.values(), *by_check.values())):
        raise TypeError("a field that is by SAE is not an object")
    return {
        **rest,
        "schema": 4,
        "corpora": [_renamed(corpus, {"n_cut": "n_truncated"}) for corpus in rest["corpora"]],
        "results": [_result(row, by_subject, by_check) for row in rest["results"]],
    }


def _result(row: Json, by_subject: Json, by_check: Json) -> Json:
    new = _renamed(row, {"measures": "estimates", "model": "model_index", "corpus": "corpus_index"})
    new["limits"] = _limits(new.pop("limit"), new.pop("decision"))
    for key, (check, field) in _BY_SUBJECT.items():
        if row["check"] == check and row["sae_id"] in by_subject[key]:
            new[field] = _detail(field, by_subject[key][row["sae_id"]])
    for key, field in _BY_CHECK.items():
        if row["check"] in by_check[key].get(row["sae_id"], {}):
            new[field] = _detail(field, by_check[key][row["sae_id"]][row["check"]])
    return new


def _limits(limit: Json | None, decision: Json | None) -> list[Json]:
    if limit is None:
        return []
    decided = None if decision is None else _renamed(decision, {"decided_at": "n_used"})
    return [{"min": None, "max": None, **limit, "decision": decided}]


def _detail(field: str, value: Any) -> Any:
    if field == "explanation":
        return {**value, "tokens": [_token(token) for token in value["tokens"]]}
    names = _RENAMED.get(field, {})
    if field == "curves":
        return {measure: _renamed(columns, names) for measure, columns in value.items()}
    if field == "paired_sample":
        return {"kind": "answers" if "answers" in value else "ratio", **_renamed(value, names)}
    return [_renamed(each, names) for each in value]


def _token(token: Json) -> Json:
    new = _renamed(token, _OF_TOKEN)
    new["restored_positions"] = [_position(position) for position in new["restored_positions"]]
    return new


def _position(position: Json) -> Json:
    new = _renamed(position, _OF_POSITION)
    new["ablated_latents"] = [_renamed(latent, {"latent": "latent_index"}) for latent in new["ablated_latents"]]
    return new


def _renamed(row: Json, names: dict[str, str]) -> Json:
    return {names.get(key, key): value for key, value in row.items()}
