"""
One run as strict JSON, both ways: what was measured, with what, and what followed.

The format is a contract (`record.schema.json` beside this file): others read it. A field is never given a new meaning;
a change that old readers would misread raises SCHEMA.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import jsonschema

from sae_checks import checks, errors, explanation
from sae_checks.explanation import Explanation
from sae_checks.judging import paired_samples
from sae_checks.judging.changed_answers import ChangedAnswer, ChangedChoice
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.limits import Limit
from sae_checks.judging.paired_samples import PairedSample
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.propagation_readings import Downstream
from sae_checks.judging.sequential import Decision
from sae_checks.judging.study_readings import StackStep
from sae_checks.judging.verdict import Outcome
from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.provenance import CorpusFacts, FileHash, ModelFacts, Package, Provenance, SaeFacts

SCHEMA = 3
_ADDED: dict[str, dict[str, Any]] = {"choice_flips": {}, "explanations": {}}
"""What records of this schema did not have at first: where it is not there, nothing was told of it."""
_PACKAGES = (
    "sae-checks",
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "datasets",
    "numpy",
    "scipy",
    "pytest",
)

T = TypeVar("T")
Json = dict[str, Any]  # Any: JSON's values, validated against the schema before they are read


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One check of one SAE."""

    sae_id: str
    check: str
    outcome: Outcome
    reason: str
    limit: Limit | None
    """None only where none was looked up."""
    estimates: tuple[Estimate, ...] = ()
    decision: Decision | None = None
    """what the verdict rests on; None where the limited measure was counted, is exact, or has no verdict."""
    paired_sample: PairedSample | None = None
    """of the limited measure, for a later run to be compared with; None: it has none."""
    curves: tuple[Curve, ...] = ()
    """measures by position; long_context only. Six significant digits of them are kept."""
    changed_answers: tuple[ChangedAnswer, ...] = ()
    """examples of answers lost and won; lambada only."""
    changed_choices: tuple[ChangedChoice, ...] = ()
    """the same of choices; cbt only."""
    worst_sequences: tuple[WorstSequence, ...] = ()
    """the sequences that the splice cost most, worst first; ce_loss only."""
    explanation: Explanation | None = None
    """where the loss comes from; ce_loss only, and only where that was asked (--sae-explain)."""
    downstream: tuple[Downstream, ...] = ()
    """what the splice does at every later SAE; propagation only."""
    stack_steps: tuple[StackStep, ...] = ()
    """one SAE, two, ... of a stack; checks of stacks only."""
    provenance: Provenance | None = None
    """None for what was never measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """The release as it was asked for and pinned."""

    name: str
    source: str
    revision: str | None
    sae_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run."""

    started: str
    """UTC, ISO 8601."""
    wall_s: float
    release: ReleaseFacts
    options: tuple[tuple[str, str | int | None], ...]
    software: tuple[Package, ...]
    platform: str
    results: tuple[Result, ...]
    exit_status: int | None = None
    """what pytest was to exit with when the record was made; None: not told."""

    @property
    def passed(self) -> bool:
        """Whether the run is a pass: no check is red, and every SAE that was to be judged got a verdict."""
        return self.exit_status == 0

    def to_frame(self) -> Any:  # Any: pandas is imported when it is asked for
        """
        The checks that were selected as a table of pandas, one row each.

        Returns:
            Columns `sae`, `check`, `outcome`, `measure`, `value`, `low` and `high` (a nominal 95 % interval), `unit`,
            `n` (sequences or items), `limit` and `reason`; the measure is the one that is limited.
        """
        from sae_checks.record import frame

        return frame.of_results(self.results)


def software() -> tuple[Package, ...]:
    """The installed versions of everything that can move a number."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(Package(name=name, version=metadata.version(name)))
        except metadata.PackageNotFoundError:  # a bare checkout has no sae-checks distribution
            continue
    return tuple(found)


def to_json(record: Record) -> Json:
    """The record as JSON values, checked against the schema."""
    provenances = [result.provenance for result in record.results if result.provenance is not None]
    saes = _once([provenance.sae for provenance in provenances if provenance.sae is not None])
    models = _once([provenance.model for provenance in provenances])
    corpora = _once([provenance.corpus for provenance in provenances])
    document: Json = {
        "schema": SCHEMA,
        "started": record.started,
        "wall_s": record.wall_s,
        "exit_status": record.exit_status,
        "release": {
            **{key: value for key, value in asdict(record.release).items() if key != "sae_ids"},
            "sae_ids": list(record.release.sae_ids),
            "saes": [asdict(sae) for sae in saes],
        },
        "models": [asdict(model) for model in models],
        "corpora": [asdict(corpus) for corpus in corpora],
        "options": dict(record.options),
        "software": {package.name: package.version for package in record.software},
        "platform": record.platform,
        "results": [_row(result, models, corpora) for result in record.results],
        "curves": {
            result.sae_id: {curve.measure: _columns(curve) for curve in result.curves}
            for result in record.results
            if result.curves
        },
        "propagation": {r.sae_id: [asdict(cell) for cell in r.downstream] for r in record.results if r.downstream},
        "stacks": _stacks(record.results),
        "samples": _samples(record.results),
        "flips": {
            result.sae_id: [asdict(flip) for flip in result.changed_answers]
            for result in record.results
            if result.changed_answers
        },
        "worst": {
            result.sae_id: [asdict(each) for each in result.worst_sequences]
            for result in record.results
            if result.worst_sequences
        },
        "explanations": {
            r.sae_id: explanation.to_json(r.explanation) for r in record.results if r.explanation is not None
        },
        "choice_flips": {
            r.sae_id: [asdict(flip) for flip in r.changed_choices] for r in record.results if r.changed_choices
        },
    }
    document = cast(Json, json.loads(dumps(document)))
    _validator().validate(document)
    return document


def from_json(document: Json, *, path: str = "record") -> Record:
    """
    The record that `to_json` wrote.

    Raises:
        RecordError: not of this schema.
    """
    try:
        document = {**_ADDED, **document} if isinstance(document, dict) else document
        _validator().validate(document)
    except jsonschema.ValidationError as problem:
        raise errors.bad_record(path, problem.message) from None
    release = document["release"]
    saes = {sae["sae_id"]: _sae_facts(sae) for sae in release["saes"]}
    models = [_model_facts(model) for model in document["models"]]
    corpora = [CorpusFacts(**corpus) for corpus in document["corpora"]]
    return Record(
        started=document["started"],
        wall_s=document["wall_s"],
        release=ReleaseFacts(
            name=release["name"],
            source=release["source"],
            revision=release["revision"],
            sae_ids=tuple(release["sae_ids"]),
        ),
        options=tuple(document["options"].items()),
        software=tuple(Package(name=name, version=version) for name, version in document["software"].items()),
        platform=document["platform"],
        results=tuple(_result(row, document, saes, models, corpora) for row in document["results"]),
        exit_status=document["exit_status"],
    )


def text(record: Record) -> str:
    """*record* as the text of its file."""
    # these on one line each: they are most of the file, and nobody reads a number per line
    dense = ("curves", "worst")
    rows = (f'"{key}": {dumps(rows, indent=None if key in dense else 1)}' for key, rows in to_json(record).items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


def write(record: Record, path: Path) -> None:
    """*record* to *path*, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # beside it: a rename does not cross file systems
    try:
        part.write_text(text(record), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> Record:
    """
    The record in *path*.

    Raises:
        RecordError: not strict JSON of this schema.
    """
    try:
        found = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise errors.bad_record(str(path), str(problem)) from None
    return loads(found, str(path))


def loads(text: str, source: str) -> Record:
    """
    The record that *text* is; *source* is where it comes from.

    Raises:
        RecordError: not strict JSON of this schema.
    """
    return from_json(parsed(text, source), path=source)


def parsed(text: str, source: str) -> Json:
    """
    Strict JSON as values, not checked against the schema yet.

    Raises:
        RecordError: no strict JSON.
    """
    try:
        document: Json = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise errors.bad_record(source, str(problem)) from None
    return document


def pack(result: Result) -> str:
    """*result* as one string, for the way from an xdist worker to the controller."""
    blank = ReleaseFacts(name="", source="", revision=None, sae_ids=(result.sae_id,))
    alone = Record(started="", wall_s=0.0, release=blank, options=(), software=(), platform="", results=(result,))
    return dumps(to_json(alone))


def unpack(text: str) -> Result:
    """The result that `pack` packed."""
    (result,) = from_json(json.loads(text)).results
    return result


def dumps(value: object, *, indent: int | None = None) -> str:
    """Strict JSON: a NaN or an infinity raises ValueError instead of becoming a word that is not JSON."""
    return json.dumps(value, allow_nan=False, indent=indent)


@cache
def _validator() -> jsonschema.protocols.Validator:
    extend: Any = jsonschema.validators.extend  # Any: it has no types
    return cast(jsonschema.protocols.Validator, extend(jsonschema.Draft202012Validator, {"items": _items})(schema()))


def _items(validator: Any, items: Json, instance: Any, of: Json) -> Iterator[jsonschema.ValidationError]:
    """As the draft has it; columns of numbers at a glance, for one by one a quarter million of them takes 15 s."""
    if items == {"type": "number"} and all(type(x) in (int, float) for x in instance):
        return
    if items == {"type": "integer", "minimum": 0} and all(type(x) is int and x >= 0 for x in instance):
        return
    yield from jsonschema.Draft202012Validator.VALIDATORS["items"](validator, items, instance, of)


@cache
def schema() -> Json:
    """The JSON Schema of a record."""
    return cast(
        Json, json.loads(resources.files("sae_checks.record").joinpath("record.schema.json").read_text("utf-8"))
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _once(facts: Iterable[T]) -> list[T]:
    """Each distinct entry, in order of first appearance."""
    return list(dict.fromkeys(facts))


def _row(result: Result, models: list[ModelFacts], corpora: list[CorpusFacts]) -> Json:
    limit, provenance = result.limit, result.provenance
    return {
        "sae_id": result.sae_id,
        "check": result.check,
        "outcome": result.outcome,
        "reason": result.reason,
        "limit": None
        if limit is None
        else {
            "measure": limit.measure,
            limit.kind: limit.value,
            **({} if limit.floor is None else {"min": limit.floor}),
            "unit": limit.unit,
            "source": limit.source,
            "where": limit.where,
        },
        "measures": _measures(result.estimates),
        "decision": None if result.decision is None else _decision_row(result.decision),
        "model": None if provenance is None else models.index(provenance.model),
        "corpus": None if provenance is None else corpora.index(provenance.corpus),
    }


def _result(
    row: Json, document: Json, saes: Mapping[str, SaeFacts], models: list[ModelFacts], corpora: list[CorpusFacts]
) -> Result:
    provenance = None
    if row["model"] is not None:
        try:
            of_sae = saes[row["sae_id"]] if checks.named(row["check"]).of == "sae" else None
            provenance = Provenance(sae=of_sae, model=models[row["model"]], corpus=corpora[row["corpus"]])
        except (KeyError, IndexError, TypeError):
            raise errors.bad_record("record", f"a result of {row['sae_id']} points at nothing") from None
    limit = row["limit"]
    # beside the results, not in them: the one is most of the file, the other is for people
    drawn = document["curves"].get(row["sae_id"], {}) if row["check"] == checks.LONG_CONTEXT.name else {}
    flips = document["flips"].get(row["sae_id"], ()) if row["check"] == checks.LAMBADA.name else ()
    choice_flips = document["choice_flips"].get(row["sae_id"], ()) if row["check"] == checks.CBT.name else ()
    worst = document["worst"].get(row["sae_id"], ()) if row["check"] == checks.CE_LOSS.name else ()
    explained = document["explanations"].get(row["sae_id"]) if row["check"] == checks.CE_LOSS.name else None
    cells = document["propagation"].get(row["sae_id"], ()) if row["check"] == checks.PROPAGATION.name else ()
    sample = document["samples"].get(row["sae_id"], {}).get(row["check"])
    steps = document["stacks"].get(row["sae_id"], {}).get(row["check"], ())
    return Result(
        sae_id=row["sae_id"],
        check=row["check"],
        outcome=row["outcome"],
        reason=row["reason"],
        limit=None if limit is None else _limit(row["check"], limit),
        estimates=_estimates(row["measures"]),
        decision=None if row["decision"] is None else _decision(row),
        paired_sample=None if sample is None else paired_samples.from_json(sample),
        curves=tuple(_curve(measure, columns) for measure, columns in drawn.items()),
        changed_answers=tuple(ChangedAnswer(**flip) for flip in flips),
        changed_choices=tuple(ChangedChoice(**flip) for flip in choice_flips),
        worst_sequences=tuple(_worst(each) for each in worst),
        explanation=None if explained is None else explanation.from_json(explained),
        downstream=tuple(Downstream(**cell) for cell in cells),
        stack_steps=tuple(StackStep(sae_id=step["sae_id"], estimates=_estimates(step["measures"])) for step in steps),
        provenance=provenance,
    )


def _decision_row(decision: Decision) -> Json:
    """Without its outcome, which is the result's."""
    row = asdict(decision)
    del row["outcome"]
    return {"decided_at": row.pop("n_used"), **row}


def _decision(row: Json) -> Decision:
    rest = {name: value for name, value in row["decision"].items() if name != "decided_at"}
    return Decision(outcome=row["outcome"], n_used=row["decision"]["decided_at"], **rest)


def _samples(results: Iterable[Result]) -> Json:
    """By SAE or stack, and check."""
    found: Json = {}
    for result in results:
        if result.paired_sample is not None:
            found.setdefault(result.sae_id, {})[result.check] = paired_samples.to_json(result.paired_sample)
    return found


def _stacks(results: Iterable[Result]) -> Json:
    """By stack and check, the measures of one SAE, two, ... of it."""
    found: Json = {}
    for result in results:
        if result.stack_steps:
            rows = [{"sae_id": step.sae_id, "measures": _measures(step.estimates)} for step in result.stack_steps]
            found.setdefault(result.sae_id, {})[result.check] = rows
    return found


def _measures(estimates: Iterable[Estimate]) -> Json:
    return {e.measure: {"value": e.value, "low": e.low, "high": e.high, "unit": e.unit, "n": e.n} for e in estimates}


def _estimates(measures: Json) -> tuple[Estimate, ...]:
    return tuple(Estimate(measure=name, **values) for name, values in measures.items())


def _columns(curve: Curve) -> Json:
    """*curve* as columns, its values to six significant digits."""
    of_values = {name: [float(f"{x:.6g}") for x in getattr(curve, name)] for name in ("value", "low", "high")}
    return {"unit": curve.unit, "position": curve.position, **of_values, "n": curve.n}


def _curve(measure: str, columns: Json) -> Curve:
    lengths = {len(column) for name, column in columns.items() if name != "unit"}
    if len(lengths) != 1:
        raise errors.bad_record("record", f"the columns of the curve {measure} are not of one length")
    of_numbers = {name: tuple(columns[name]) for name in ("position", "value", "low", "high", "n")}
    return Curve(measure=measure, unit=columns["unit"], **of_numbers)


def _worst(row: Json) -> WorstSequence:
    if len(row["tokens"]) != len(row["increase_nats"]):
        raise errors.bad_record("record", "the tokens of a worst sequence and their increases are not of one length")
    columns = {name: tuple(row[name]) for name in ("tokens", "increase_nats")}
    return WorstSequence(**{**row, **columns})


def _limit(check: str, limit: Json) -> Limit:
    kind: Literal["max", "min"] = "max" if "max" in limit else "min"
    rest = {key: limit[key] for key in ("measure", "unit", "source", "where")}
    floor = limit["min"] if len({"max", "min"} & set(limit)) == 2 else None
    return Limit(check=check, kind=kind, value=limit[kind], floor=floor, **rest)


def _sae_facts(sae: Json) -> SaeFacts:
    return SaeFacts(**{**sae, "weights": tuple(FileHash(**file) for file in sae["weights"])})


def _model_facts(model: Json) -> ModelFacts:
    weights = tuple(FileHash(**file) for file in model["weights"])
    return ModelFacts(**{**model, "processing": tuple(model["processing"]), "weights": weights})
