"""A record -> the head of a report: the verdict in a sentence, and what was judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sae_checks import checks
from sae_checks.provenance import SaeFacts
from sae_checks.record.results import Record, Result
from sae_checks.report import command, tradeoff, wording

_PACKAGES = ("sae-checks", "sae-lens", "torch", "transformers", "transformer-lens")
_KINDS = {"sae": "SAE", "stack": "stack", "comparison": "comparison"}


def sentence(run: Record) -> str:
    """Who is not within limits, and how many checks have each outcome."""
    red = {"failed": ("error", "failed"), "not_decided": ("inconclusive",), "passed": ()}[run.verdict]
    counts = outcome_counts(run.results)
    n_saes = len(run.release.sae_ids)
    subjects = _subject_counts([r for r in run.results if r.outcome in red], n_saes)
    if run.verdict == "failed":
        return f"{subjects} not within limits: {counts}."
    if run.verdict == "not_decided":
        return f"No check failed, but {f'{subjects} undecided' if subjects else 'not all is decided'}: {counts}."
    return f"All {n_saes} SAEs within limits: {counts}."


def _subject_counts(results: Iterable[Result], n_saes: int) -> str:
    """`2 of 5 SAEs and 1 stack`."""
    of_kind: dict[str, set[str]] = {}
    for result in results:
        of_kind.setdefault(checks.named(result.check).of, set()).add(result.sae_id)
    parts = []
    for kind, name in _KINDS.items():
        n = len(of_kind.get(kind, ()))
        if n:
            parts.append(f"{n} of {n_saes} SAEs" if kind == "sae" else f"{n} {name}{'s' if n > 1 else ''}")
    return " and ".join(parts)


def outcome_counts(results: Sequence[Result]) -> str:
    """`12 failed, 42 passed`, the gravest first."""
    in_order = ("error", "failed", "inconclusive", "passed", "reported", "not_measured")
    counts = {outcome: sum(r.outcome == outcome for r in results) for outcome in in_order}
    return ", ".join(f"{n} {wording.OUTCOMES[outcome][1]}" for outcome, n in counts.items() if n) or "no checks"


def facts(run: Record, *, with_command: bool = True) -> tuple[tuple[str, str], ...]:
    """What was judged, by what, as (label, text)."""
    return tuple((label, text) for label, text in _facts(run, with_command=with_command) if text)


def _facts(run: Record, *, with_command: bool) -> Iterator[tuple[str, str]]:
    provenances = [result.provenance for result in run.results if result.provenance is not None]
    models = dict.fromkeys(provenance.model for provenance in provenances)
    texts = dict.fromkeys((p.corpus.kind, p.corpus.source) for p in provenances)
    saes = {p.sae.sae_id: p.sae for p in provenances if p.sae is not None}
    at = f" at {run.release.revision}" if run.release.revision else ""
    yield "Release", f"{_short(run.release.source)}{at}"
    yield "Model", ", ".join(f"{_short(model.source)} ({model.dtype} on {model.device})" for model in models)
    yield "SAEs", _saes(run, tuple(saes.values()))
    yield "Text", ", ".join(f"{kind}: {_short(source)}" for kind, source in texts if kind != "golden")
    options = dict(run.options)
    yield "Chosen", str(options.get("chosen") or "")
    yield "Baseline", str(options.get("baseline_run") or "")
    yield "n used", ", ".join(_used(run.results))
    yield "Limits", _limits(run.results)
    if with_command:
        yield "Command", command.typed(run)
    yield "Run", f"{run.started[:16].replace('T', ' ')} UTC, {wording.seconds(run.wall_s)}"
    yield "Versions", ", ".join(f"{p.name} {p.version}" for p in run.software if p.name in _PACKAGES)


def _saes(run: Record, saes: Sequence[SaeFacts]) -> str:
    """`5: standard, 64 to 512 latents, L0 9.1 to 14.2`."""
    parts = [", ".join(sorted({sae.architecture for sae in saes}))]
    parts.append(", ".join(f"{d_in} → {d_sae}" for d_in, d_sae in sorted({(s.d_in, s.d_sae) for s in saes})))
    found = [row.l0 for row in tradeoff.rows(run) if row.l0 is not None]
    if found:
        parts.append(f"L0 {_range(min(found), max(found))}")
    return f"{len(run.release.sae_ids)}: {'; '.join(part for part in parts if part)}"


def _short(source: str) -> str:
    """*source*; of the absolute path of a file or folder only the end."""
    parts = source.split("/")
    return source if not source.startswith("/") or len(parts) < 4 else f"…/{'/'.join(parts[-2:])}"


def _used(results: Sequence[Result]) -> Iterator[str]:
    """`CE loss 16 to 48` for each check."""
    for check in checks.CHECKS:
        found = [r.judged.n for r in results if r.check == check.name and r.judged is not None and not check.is_exact]
        if found:
            yield f"{check.title} {_range(min(found), max(found))}"


def _limits(results: Sequence[Result]) -> str:
    """`thresholds.toml for 45 checks`, by file."""
    limited = [r for r in results if r.limit is not None and not checks.named(r.check).is_exact]
    files = [r.limit.where.partition(" [")[0] for r in limited if r.limit is not None]
    return ", ".join(f"{file} for {files.count(file)} checks" for file in dict.fromkeys(files))


def _range(low: float, high: float) -> str:
    return wording.number(low) if low == high else f"{wording.number(low)} to {wording.number(high)}"
