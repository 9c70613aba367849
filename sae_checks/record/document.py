"""
The record file as types: its one definition, from which `record.schema.json` is generated.

msgspec reads and checks a file by these classes. A field keeps its name and meaning: a change that would mislead a
reader raises SCHEMA. A field that is added gets a default, so that a file from before it still is a record.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sae_checks.diagnosis import Diagnosis
from sae_checks.explanation import Explanation
from sae_checks.fields import Count, Sha256
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.judged import JudgedValue
from sae_checks.judging.propagation_readings import Downstream
from sae_checks.judging.verdict import Outcome
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, ModelFacts, SaeFacts
from sae_checks.record.run_verdict import Word

SCHEMA: Literal[4] = 4


class EstimateRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured value."""

    value: float
    low: float
    """lower end of the two-sided 95 % interval; equal to value for what is counted and not estimated."""
    high: float
    """upper end of that interval."""
    unit: str
    n: Count
    """sequences or items that were measured; they, not tokens, are the unit of the interval."""


class DecisionRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The evidence on which a verdict rests: the look at the data that decided, or the last one."""

    measure: str
    """what was tested: the limited measure, or running_increase for usable_context."""
    n_used: Count
    """sequences or items up to that look."""
    n_most: Count
    """sequences or items that could be used."""
    value: float
    """of the tested measure over the first n_used."""
    low: float | None
    """lower bound, valid however often was looked; null: n_used is too small for one."""
    high: float | None
    """upper bound, likewise."""
    worst: float
    """value of the worst single sequence or item."""
    skewness: float
    """of the tested values, towards the bad side."""
    n_needed: Count | None
    """about how many would decide; null: it is decided, or the value is the limit."""
    costliest: Count | None = None
    """row of the sequence that costs most, in the unit of the bet; null: no bet decides."""
    costliest_times: float | None = None
    """how many times the limit it costs, as if it were of full length."""


class LimitRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit of a check, and what its verdict rests on."""

    measure: str
    min: float | None
    """least that is allowed; null: no lower limit."""
    max: float | None
    """most that is allowed; null: no upper limit."""
    unit: str
    source: str
    """where the number comes from."""
    where: str
    """file and table in which it is written."""
    decision: DecisionRow | None
    """null: the measure is counted or exact, or there is no verdict."""
    worst: float | None = None
    """how many times the limit one sequence may cost at most if the check is to pass; null: the default of the plan."""
    outcome: Outcome | None = None
    """the verdict by this limit alone; null: of an earlier version."""
    reason: str = ""
    """that verdict in words; empty for the first limit, whose words the result has."""
    judged: JudgedValue | None = None
    """the value as that verdict saw it; null for the first limit, whose value the result has."""


class CurveRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measure by position: columns of one length, six significant digits, not smoothed."""

    unit: str
    position: tuple[Count, ...]
    """position in the sequence, rising; 0 is the first token."""
    value: tuple[float, ...]
    low: tuple[float, ...]
    """lower end of the pointwise 95 % interval."""
    high: tuple[float, ...]
    """upper end."""
    n_sequences: tuple[Count, ...]
    """sequences that have the position."""


class StackStepRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first SAEs of a stack in place at once, up to and with one of them."""

    sae_id: str
    """the last of them."""
    estimates: dict[str, EstimateRow]
    """by measure."""


class PairedRatioRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="ratio"):
    """A measure as sum(numerators) / sum(denominators), one pair of numbers per sequence or item of the plan."""

    measure: str
    measures_version: Annotated[int, Meta(ge=1)]
    """version of the check's measures."""
    fingerprint: Sha256
    """sha256 of these sequences or items."""
    numerators: bytes
    """base64 of little-endian float32."""
    denominators: bytes
    """base64 of little-endian float32."""
    ideal_value: float | None
    """value of the measure for an exact reconstruction; null: there is no such number."""
    largest_denominator: float | None = None
    """of any sequence, known before it was measured; null: unknown."""


class PairedAnswersRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="answers"):
    """How each answer changed, one number per item of the plan."""

    measure: str
    measures_version: Annotated[int, Meta(ge=1)]
    """version of the check's measures."""
    fingerprint: Sha256
    """sha256 of these items."""
    answers: bytes
    """base64 of int8: 1 lost, -1 won, 0 unchanged."""
    n_listed: Count | None
    """items of the whole list; null: unknown."""


class ResultRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One check of one SAE or stack, or one comparison with the baseline; empty details are left out."""

    sae_id: str
    """id of the SAE; of a stack `all of PLACE`; of a comparison `SAE-CHECK`."""
    check: str
    outcome: Outcome
    reason: str
    """the verdict in words."""
    limits: tuple[LimitRow, ...]
    """the limit that decides first, then the others; empty: none is written."""
    estimates: dict[str, EstimateRow]
    """what was measured, by measure; descriptive: `judged` is what the verdict rests on."""
    model_index: Count | None
    """index into models; null: nothing was measured."""
    corpus_index: Count | None
    """index into corpora; null: nothing was measured."""
    judged: JudgedValue | None = None
    """the value that is shown, as the verdict saw it; null: none was measured, or it is not finite."""
    accepted: str | None = None
    """source of a limit that allows what the default limit would fail; null: the default would pass it, too."""
    paired_sample: PairedRatioRow | PairedAnswersRow | None = None
    """the limited measure sequence by sequence or item by item, for a later run to be compared with."""
    curves: dict[str, CurveRow] = {}
    """by measure; long_context only."""
    changed_answers: tuple[ChangedAnswer, ...] = ()
    """at most ten answers lost and ten won, the largest change in probability first; lambada only."""
    changed_choices: tuple[ChangedChoice, ...] = ()
    """the same of choices; cbt only."""
    worst_sequences: tuple[WorstSequence, ...] = ()
    """at most five sequences within the training context, worst first; four significant digits; ce_loss only."""
    explanation: Explanation | None = None
    """where the loss comes from; ce_loss with --sae-explain only."""
    diagnosis: Diagnosis | None = None
    """what is wrong with the SAE, as measured; red checks only."""
    downstream: tuple[Downstream, ...] = ()
    """what the splice does at every later SAE, by depth; propagation only."""
    stack_steps: tuple[StackStepRow, ...] = ()
    """the first SAE of a stack, the first two, ...; checks of stacks only."""


class ReleaseRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The release as it was asked for and pinned."""

    name: str
    source: str
    """folder, Hub repository, or `embedded`."""
    revision: str | None
    """commit that was fetched; null for files on disk."""
    sae_ids: tuple[str, ...]
    """every SAE that was asked for."""
    saes: tuple[SaeFacts, ...]
    """every SAE that was measured."""


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of the gate, as --sae-out writes it; explained in docs/record.md."""

    schema: Literal[4]
    started: str
    """UTC, ISO 8601; of a merged record the earliest start."""
    wall_s: Annotated[float, Meta(ge=0)]
    """seconds from the start of the session to its end; of a merged record the sum of its shards."""
    exit_status: int | None
    """what pytest, or sae-checks merge, exits with; null: unknown."""
    verdict: Word | None = None
    """on the run; not_decided: nothing failed, but something selected has no verdict; null: of an earlier version."""
    release: ReleaseRow
    models: tuple[ModelFacts, ...]
    """the language models that were run."""
    corpora: tuple[CorpusFacts, ...]
    """the texts that were scored."""
    options: dict[str, str | int | bool | None]
    """every option as it was in force, and corpus_reason: why this text."""
    software: dict[str, str]
    """version of every package that can move a number."""
    platform: str
    results: tuple[ResultRow, ...]
    """one for every SAE or stack and check of the plan, also if it was not selected or not reached."""
