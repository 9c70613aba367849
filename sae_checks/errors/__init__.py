"""
Every exception and every message that a user can meet, by subject.

A message has four parts, one line each: what is wrong, what was expected (and where that is written), what was got, and
what to try. `tests/house/test_errors.py` renders each of them.
"""

from __future__ import annotations

from sae_checks.errors.comparing import (
    bad_baseline,
    bad_history,
    history_not_kept,
    history_not_read,
    no_history,
    no_such_run,
    not_comparable,
    nothing_in_common,
    unknown_measure,
)
from sae_checks.errors.corpora import (
    bad_corpus,
    dataset_not_read,
    golden_not_scored,
    no_answer_tokens,
    nothing_to_score,
    other_tokenizer,
    packed_unmarked,
    query_too_long,
)
from sae_checks.errors.exceptions import (
    HistoryError,
    HookNotHereError,
    HubBusyError,
    HubError,
    MeasuringError,
    ModelNotUnderstoodError,
    RecordError,
    SaeChecksError,
    SaeError,
    UsageError,
)
from sae_checks.errors.hub import (
    hub_busy,
    hub_denied,
    hub_gated,
    hub_no_file,
    hub_no_repo,
    hub_no_revision,
    hub_not_cached,
    hub_too_large,
    hub_too_slow,
    hub_unsafe_path,
    hub_wrong_hash,
)
from sae_checks.errors.limits import (
    bad_thresholds,
    no_limit,
    not_calibrated,
)
from sae_checks.errors.models import (
    bos_unknown,
    hook_beyond_model,
    hook_fired,
    hook_not_here,
    model_not_loaded,
    model_not_understood,
    model_pickle_refused,
    needs_transformer_lens,
    no_bos,
    no_model,
    no_such_head,
    stack_of_several,
    trained_without_special_tokens,
    wrong_shape,
    wrong_width,
)
from sae_checks.errors.options import (
    bad_option,
    context_too_long,
    device_unavailable,
    option_needed,
    release_not_given,
    too_many_shards,
)
from sae_checks.errors.records import (
    bad_record,
    not_explained,
    not_mergeable,
    not_written,
    nothing_to_export,
    report_not_written,
    shards_missing,
    wandb_missing,
)
from sae_checks.errors.releases import (
    bad_cfg,
    bad_weights,
    changed_meanwhile,
    cross_layer,
    empty_release,
    no_sae_matches,
    not_converted,
    not_supported,
    nothing_to_explain,
    only_pickle,
    pickle_refused,
    pickles_needed,
    unknown_hook,
    unknown_release,
)
from sae_checks.errors.verdicts import (
    checks_are_red,
    no_check_ran,
    nothing_compared,
    sae_not_judged,
)
from sae_checks.errors.wording import (
    message,
    shown,
    typed,
)

__all__ = [  # noqa: RUF022 -- by subject
    # exceptions
    "SaeChecksError",
    "UsageError",
    "SaeError",
    "HookNotHereError",
    "MeasuringError",
    "ModelNotUnderstoodError",
    "HubError",
    "HubBusyError",
    "RecordError",
    "HistoryError",
    # wording
    "message",
    "shown",
    "typed",
    # options
    "bad_option",
    "release_not_given",
    "option_needed",
    "device_unavailable",
    "context_too_long",
    "too_many_shards",
    # releases
    "unknown_release",
    "empty_release",
    "no_sae_matches",
    "nothing_to_explain",
    "pickles_needed",
    "bad_cfg",
    "not_supported",
    "unknown_hook",
    "cross_layer",
    "only_pickle",
    "pickle_refused",
    "not_converted",
    "bad_weights",
    "changed_meanwhile",
    # hub
    "hub_no_repo",
    "hub_gated",
    "hub_denied",
    "hub_no_revision",
    "hub_no_file",
    "hub_unsafe_path",
    "hub_too_large",
    "hub_busy",
    "hub_too_slow",
    "hub_wrong_hash",
    "hub_not_cached",
    # models
    "no_model",
    "model_pickle_refused",
    "model_not_loaded",
    "model_not_understood",
    "hook_beyond_model",
    "hook_not_here",
    "needs_transformer_lens",
    "hook_fired",
    "wrong_width",
    "no_such_head",
    "wrong_shape",
    "stack_of_several",
    "trained_without_special_tokens",
    "bos_unknown",
    "no_bos",
    # corpora
    "bad_corpus",
    "dataset_not_read",
    "other_tokenizer",
    "packed_unmarked",
    "no_answer_tokens",
    "query_too_long",
    "golden_not_scored",
    "nothing_to_score",
    # limits
    "bad_thresholds",
    "no_limit",
    "not_calibrated",
    # verdicts
    "no_check_ran",
    "sae_not_judged",
    "checks_are_red",
    "nothing_compared",
    # records
    "bad_record",
    "not_mergeable",
    "shards_missing",
    "not_explained",
    "not_written",
    "report_not_written",
    "nothing_to_export",
    "wandb_missing",
    # comparing
    "bad_baseline",
    "nothing_in_common",
    "not_comparable",
    "bad_history",
    "history_not_kept",
    "history_not_read",
    "no_history",
    "no_such_run",
    "unknown_measure",
]
