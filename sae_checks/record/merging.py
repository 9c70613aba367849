"""
Merge the records of the shards of one run into the record that the whole run would have written.

Refuses records that are of other files, options or versions, that disagree about a check, or that together lack one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

from sae_checks import checks, errors
from sae_checks.plan import shards
from sae_checks.provenance import CorpusFacts
from sae_checks.record import run_verdict
from sae_checks.record.results import Record, Result

_OF_ONE_PROCESS = ("out", "history", "memory_gib", "baseline_run")
"""Options that may differ, because they are of one process; the merged record has none of them."""

Cell = tuple[str, str]
"""(id of an SAE, a stack or a comparison, name of the check)."""


def merge(records: Sequence[tuple[str, Record]]) -> Record:
    """
    Merge *records* into one, with the exit status that follows from its results.

    Args:
        records: (name of its source, record) of every shard, in any order; at least one.

    Raises:
        RecordError: the records are not of one run, disagree, or do not cover the whole run.
    """
    (_, first), *others = records
    for source, other in others:
        for what, expected, got in _facts(first, other):
            if expected != got:
                raise errors.not_mergeable(source, what, str(expected), str(got))
    found: dict[Cell, Result] = {}
    for source, one in records:
        for cell, result in _own_results(one):
            if cell in found and (differ := _disagreement(found[cell], result)) is not None:
                raise errors.not_mergeable(source, f"{cell[1]} of {cell[0]}", *differ)
            found.setdefault(cell, result)
    _check_made_of(records)
    cells = [(result.sae_id, result.check) for result in first.results]
    if missing := [f"{check} of {subject}" for subject, check in cells if (subject, check) not in found]:
        raise errors.shards_missing(missing)
    merged = replace(
        first,
        started=min(one.started for _, one in records),
        wall_s=round(sum(one.wall_s for _, one in records), 3),
        options=tuple((key, None if key in ("shard", *_OF_ONE_PROCESS) else value) for key, value in first.options),
        platform=" + ".join(dict.fromkeys(one.platform for _, one in records)),
        results=tuple(found[cell] for cell in cells),
    )
    return replace(merged, exit_status=0 if verdict_on(merged, [source for source, _ in records]) is None else 1)


def verdict_on(merged: Record, sources: Sequence[str]) -> str | None:
    """Why *merged*, of the records in *sources*, is not a pass; None: it is a pass."""
    options = dict(merged.options)
    red = [r for r in merged.results if run_verdict.is_red(r.outcome, profile=str(options.get("profile")))]
    cut_short = [r for r in merged.results if r.reason == run_verdict.NOT_REACHED]
    if red or cut_short:
        return errors.checks_are_red([f"{r.check} of {r.sae_id}" for r in (*red, *cut_short)])
    cells = {(r.sae_id, r.check) for r in merged.results}
    selected = {(r.sae_id, r.check) for r in merged.results if r.reason != run_verdict.NOT_SELECTED}
    if not selected:
        return errors.no_check_ran(sources)
    baseline = options.get("baseline")
    return run_verdict.shortcoming(
        merged.results,
        selected,
        sae_ids=merged.release.sae_ids,
        comparisons={cell for cell in cells if cell[1] == checks.NO_REGRESSION.name},
        baseline=None if baseline is None else str(baseline),
    )


def _facts(first: Record, other: Record) -> Iterator[tuple[str, object, object]]:
    """What must be equal: (in words, in *first*, in *other*)."""
    for what in ("name", "source", "revision", "sae_ids"):
        yield f"the release's {what}", getattr(first.release, what), getattr(other.release, what)
    mine, yours = dict(first.options), dict(other.options)
    for key in dict.fromkeys([*mine, *yours]):
        if key == "shard":
            yield "the number of shards", _n_shards(mine), _n_shards(yours)
        elif key not in _OF_ONE_PROCESS:
            yield f"the option {key}", mine.get(key), yours.get(key)
    versions = [{package.name: package.version for package in record.software} for record in (first, other)]
    for name in dict.fromkeys([*versions[0], *versions[1]]):
        yield f"the version of {name}", versions[0].get(name), versions[1].get(name)
    one_s, two_s = ([(r.sae_id, r.check) for r in record.results] for record in (first, other))
    yield "the list of checks", one_s, two_s
    for one, two in zip(first.results, other.results, strict=False):
        limits, others = (sorted(each.limits, key=lambda limit: limit.measure) for each in (one, two))
        yield f"the limits of {one.check} of {one.sae_id}", limits, others


def _n_shards(options: dict[str, str | int | None]) -> int:
    shard = options.get("shard")
    return 1 if shard is None else shards.parse(str(shard)).n_shards


def _own_results(record: Record) -> Iterator[tuple[Cell, Result]]:
    """The results that *record* does not leave to another shard."""
    shard = dict(record.options).get("shard")
    for result in record.results:
        if shard is None or result.reason != run_verdict.of_other_shard(str(shard)):
            yield (result.sae_id, result.check), result


def _disagreement(one: Result, two: Result) -> tuple[str, str] | None:
    """Both results of one check in words, if they differ; None: they agree."""
    if one.outcome != two.outcome:
        return one.outcome, two.outcome
    if [e.measure for e in one.estimates] != [e.measure for e in two.estimates]:
        return _measures(one), _measures(two)
    for a, b in zip(one.estimates, two.estimates, strict=True):
        if not all(
            math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-9)
            for x, y in zip((a.value, a.low, a.high, a.n), (b.value, b.low, b.high, b.n), strict=True)
        ):
            return f"{a.measure} {a.value!r} (n = {a.n})", f"{b.measure} {b.value!r} (n = {b.n})"
    return None


def _measures(result: Result) -> str:
    return ", ".join(e.measure for e in result.estimates) or "nothing measured"


def _check_made_of(records: Sequence[tuple[str, Record]]) -> None:
    """
    Check that models, SAEs and corpora of one name are equal in all records.

    Raises:
        RecordError: two of them differ.
    """
    seen: dict[Hashable, tuple[str, object]] = {}
    for source, record in records:
        for result in record.results:
            if result.provenance is None:
                continue
            sae, model, corpus = result.provenance.sae, result.provenance.model, result.provenance.corpus
            facts: list[tuple[str, Hashable, object]] = [(f"the model {model.source}", model.backend, model)]
            if sae is not None:
                facts.append((f"the SAE {sae.sae_id}", "", sae))
            facts += _of_corpus(corpus, (result.check, model.source))
            for what, of, value in facts:
                _, first = seen.setdefault((what, of), (source, value))
                if first != value:
                    raise errors.not_mergeable(source, what, str(first), str(value))


def _of_corpus(corpus: CorpusFacts, scored: Hashable) -> Iterator[tuple[str, Hashable, object]]:
    """What must be equal for everything that was read from *corpus*; golden prompts are each SAE's own."""
    if corpus.kind == "golden":
        return
    what = f"the corpus {corpus.source} ({corpus.kind})"
    if corpus.n_listed is not None:  # all of it was read, so that its hash does not depend on how much was asked for
        yield what, "sha256", corpus.sha256
    # equal numbers of sequences: a verdict that was extended to more has another fingerprint, and rightly so
    key = (scored, corpus.prepend_bos, corpus.n_sequences, corpus.n_context_tokens)
    yield what, key, corpus.fingerprint
