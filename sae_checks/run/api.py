"""The functions of the public API: `judge`, `list_saes`, `read_record`."""

from __future__ import annotations

import difflib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sae_checks import checks as catalogue
from sae_checks.plan import flags, options, output_folder
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.record import record, run_verdict
from sae_checks.record.results import Record, Result
from sae_checks.release import release as releases
from sae_checks.release.release import BrokenSae, Sae
from sae_checks.run import enough, in_memory, recording
from sae_checks.run.settle import Cell, Request, measured_cell, pin_texts, settle

if TYPE_CHECKING:
    from sae_checks.corpora.corpus import Corpus

_OWN_PARAMETERS = {"sae_release", "sae_model", "sae_corpus", "sae_lambada", "sae_cbt"}
"""keys of options that are parameters of `judge` itself."""
_TEXTS = ("corpus", "lambada", "cbt")


def judge(
    release: str | Path | Mapping[str, Any],
    *,
    checks: Sequence[str] | None = None,
    model: Any = None,
    tokenizer: Any = None,
    corpus: str | Path | Iterable[Any] | None = None,
    lambada: str | Path | Iterable[Any] | None = None,
    cbt: str | Path | Iterable[Any] | None = None,
    progress: bool = True,
    **more: Any,
) -> Record:
    """
    Judge SAEs. The verdicts are those of `pytest --sae-release` on the same request.

    ```python
    record = sae_checks.judge("demo", checks=["ce_loss", "sparsity"])
    record = sae_checks.judge({"blocks.2.hook_resid_pre": sae}, model=model, tokenizer=tokenizer, corpus=texts)
    ```

    Args:
        release: what --sae-release takes, or SAEs of SAE Lens by SAE id. Where the configuration of an SAE names no
            hook, its id must be one. SAEs are not changed; a training SAE is judged as its inference SAE.
        checks: names of checks (docs/checks.md); None: all.
        model: what --sae-model takes, or a transformers model in memory. A model in memory keeps its device and
            dtype, and has its mode and gradient flags again when the function returns.
        tokenizer: of a model in memory.
        corpus: what --sae-corpus takes, or texts.
        lambada: what --sae-lambada takes, or passages; the last word of each is the answer.
        cbt: what --sae-cbt takes, or rows with `sentences`, `question`, `answer` and `options`.
        progress: show a progress bar, in a notebook as a widget.
        more: the other options of the command line, without `--sae-` and with underscores (docs/options.md).

    Returns:
        The record of the run: `record.passed`, `record.results`, `record.to_frame()`. A check that is not in *checks*
        has a result as well, "not_measured".

    Raises:
        TypeError: an argument has the wrong type, or there is no such argument.
        ValueError: a value cannot be used; errors.UsageError is a ValueError.
        HubError: the Hub does not give the release, the model or a corpus.
        SaeError: the configuration of an SAE in memory cannot be used.
    """
    started, started_s = datetime.now(UTC), time.monotonic()
    if not isinstance(release, str | Path | Mapping):
        raise TypeError(f"release= is {type(release).__name__}, not a name, a folder or SAEs by id")
    if not isinstance(progress, bool):
        raise TypeError(f"progress= is {type(progress).__name__}, not True or False")
    _check_names(checks)
    is_in_memory = model is not None and not isinstance(model, str | Path)
    texts: dict[str, str | Path | Iterable[Any] | None] = {"corpus": corpus, "lambada": lambada, "cbt": cbt}
    with TemporaryDirectory() as folder:
        request = _request(release, model=model, tokenizer=tokenizer, texts=texts, more=more, folder=Path(folder))
        if request.plan.options.out is not None:
            output_folder.prepare(request.plan.options.out)
        cells = _cells(request, checks)
        request = pin_texts(request, cells)
        with in_memory.restored(model if is_in_memory else None):
            results, selected = _judge(request, cells, progress=progress)
    is_red = any(run_verdict.is_red(r.outcome, profile=request.plan.options.profile) for r in results.values())
    is_pass = not is_red and recording.shortcoming(request, results, selected) is None
    made = recording.make_record(
        request,
        recording.all_results(request, results, selected),
        started=started.isoformat(timespec="seconds"),
        wall_s=time.monotonic() - started_s,
        exit_status=0 if is_pass else 1,
    )
    _write(made, request.plan.options)
    return made


def list_saes(release: str | Path, *, allow_pickle: bool = True) -> list[Sae | BrokenSae]:
    """
    List the SAEs of a release from their configurations. No weights are fetched.

    Args:
        release: what --sae-release takes.
        allow_pickle: also list SAEs whose weights are pickles; nothing is unpickled.

    Returns:
        SAEs in order of depth, each with `sae_id`, `hook`, `architecture`, the widths `d_in` and `d_sae`, the training
        context in tokens and more. An SAE whose configuration cannot be used is a BrokenSae, with its `problem`.

    Raises:
        UsageError: there is no such release.
        HubError: the Hub does not describe the release.
    """
    return list(releases.resolve(str(release), allow_pickle=allow_pickle).saes)


def read_record(path: str | Path) -> Record:
    """
    Read the record of a run.

    Raises:
        RecordError: the file cannot be read, or is no record of a run.
    """
    return record.read(Path(path))


def _request(
    release: str | Path | Mapping[str, Any],
    *,
    model: Any,
    tokenizer: Any,
    texts: Mapping[str, str | Path | Iterable[Any] | None],
    more: Mapping[str, Any],
    folder: Path,
) -> Request:
    """Settle the arguments of `judge`; texts in memory are written to *folder*."""
    source = None
    if model is not None and not isinstance(model, str | Path):
        _refuse(more, ("device", "dtype"), "a model in memory has its own")
        source = in_memory.model_source_of(model, tokenizer)
    elif tokenizer is not None:
        raise TypeError("tokenizer= is for a model in memory")
    given = {kind for kind, value in texts.items() if not isinstance(value, str | Path | None)}
    paths = {k: in_memory.write_texts(folder, k, v) if k in given else v for k, v in texts.items()}
    found = None
    if isinstance(release, Mapping):
        _refuse(more, ("id",), "leave SAEs out of the mapping instead")
        found = in_memory.release_of(release)
    chosen = _options(found.name if found else str(release), None if source else model, paths, more)
    return _without_paths(settle(chosen, found, source), given)


def _check_names(wanted: object) -> None:
    """Raise TypeError or ValueError unless *wanted* is None or a sequence of names of checks."""
    if wanted is None:
        return
    if isinstance(wanted, str):
        raise TypeError(f"checks= is a text; try checks=[{wanted!r}]")
    if not isinstance(wanted, Sequence):
        raise TypeError(f"checks= is {type(wanted).__name__}, not a list of names")
    names = [check.name for check in (*catalogue.CHECKS, catalogue.NO_REGRESSION)]
    for each in wanted:
        if each not in names:
            near = difflib.get_close_matches(str(each), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"checks= names {each!r}, which is none of {', '.join(names)}{hint}")


def _refuse(more: Mapping[str, Any], names: Sequence[str], reason: str) -> None:
    """Raise ValueError if one of *names* is among the arguments *more*."""
    for name in names:
        if name in more:
            raise ValueError(f"{name}= cannot be used here: {reason}")


def _options(
    release: str, model: str | Path | None, paths: Mapping[str, Any], more: Mapping[str, Any]
) -> options.Options:
    """The options of a run, parsed like those of the command line."""
    known = {spec.key.removeprefix("sae_"): spec for spec in flags.SPECS if spec.key not in _OWN_PARAMETERS}
    raw = flags.defaults()
    raw |= {"sae_release": release, "sae_model": None if model is None else str(model)}
    raw |= {f"sae_{kind}": None if path is None else str(path) for kind, path in paths.items()}
    for name, value in more.items():
        if name not in known:
            names = (*known, "checks", "model", "tokenizer", *_TEXTS)
            near = ["out"] if f"--sae-{name}" in flags.REMOVED else difflib.get_close_matches(name, names, n=1)
            raise TypeError(f"judge() has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        spec = known[name]
        if spec.is_switch and not isinstance(value, bool):
            raise TypeError(f"{name}= is {type(value).__name__}, not True or False")
        if spec.repeatable and value is not None and not isinstance(value, str):
            if not isinstance(value, list | tuple):
                raise TypeError(f"{name}= is {type(value).__name__}, not a text or a list of texts")
            raw[spec.key] = [str(each) for each in value]
        elif value is not None and value is not False:
            raw[spec.key] = "yes" if spec.is_switch else str(value)
    return options.parse(raw)


def _without_paths(request: Request, given: set[str]) -> Request:
    """Replace the paths of temporary files by the label "in memory", for the corpora named in *given*."""

    def labelled(kind: str, source: CorpusSource | None) -> CorpusSource | None:
        return replace(source, label="in memory") if kind in given and source is not None else source

    plan = request.plan
    corpus = labelled("corpus", plan.corpus)
    assert corpus is not None
    labels: dict[str, Any] = dict.fromkeys(given, "in memory")
    plan = replace(
        plan,
        corpus=corpus,
        lambada=labelled("lambada", plan.lambada),
        cbt=labelled("cbt", plan.cbt),
        options=replace(plan.options, **labels),
    )
    return replace(request, plan=plan)


def _cells(request: Request, wanted: Sequence[str] | None) -> list[Cell]:
    """The cells of the checks named *wanted*; None: all."""
    return [cell for cell in request.limits if cell in request.own and (wanted is None or cell[1] in wanted)]


def _judge(request: Request, cells: Sequence[Cell], *, progress: bool) -> tuple[dict[Cell, Result], set[Cell]]:
    """Judge *cells*; return their results, and the cells that were selected."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # WHY: see plugin/fixtures.py; no effect once torch is imported
    from sae_checks.measuring.local import LocalExecutor, silent
    from sae_checks.run.judge import Judge

    together = list(dict.fromkeys(map(measured_cell, cells)))

    def on_corpus(corpus: Corpus) -> None:
        if (problem := enough.too_few_left(corpus, request.plan.options)) is not None:
            warnings.warn(str(problem), stacklevel=2)

    of_request = Judge(request, LocalExecutor(request.plan, _bars() if progress else silent, on_corpus=on_corpus))
    results: dict[Cell, Result] = {}
    for cell in cells:
        measured = measured_cell(cell)
        result = results[measured] if measured in results else of_request.result(measured, together)
        results[cell] = result if measured == cell else of_request.comparison(result, together)
    return results, set(cells)


def _bars() -> Callable[[str], Callable[[int, int], None]]:
    """Progress bars of tqdm, one for each pass: a line on a terminal, a widget in a notebook."""
    from tqdm.auto import tqdm

    def of_kind(kind: str) -> Callable[[int, int], None]:
        bar: Any = None

        def show(n_done: int, n_all: int) -> None:
            nonlocal bar
            if bar is None or n_done < bar.n:
                bar = tqdm(total=n_all, desc=f"measuring {kind}", unit=" tokens", unit_scale=True)
            bar.total = n_all
            bar.update(n_done - bar.n)
            if n_done >= n_all:
                bar.close()

        return show

    return of_kind


def _write(made: Record, chosen: options.Options) -> None:
    """Write record and report, and add the run to the history, as the options say."""
    if chosen.record is not None:
        from sae_checks.comparing import last_green

        record.write(made, chosen.record)
        last_green.keep(made, chosen.record.parent)
    if chosen.history is not None:
        from sae_checks.comparing.history import store

        store.add(made, store.open_history(chosen.history))
    if chosen.report is not None:
        from sae_checks.report import folder

        folder.write(made, chosen.report)
