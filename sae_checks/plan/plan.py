"""The plan of one run: options and release -> what is measured, in which models, on which text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_checks import checks, errors
from sae_checks.plan import corpus_source, flags, model_source, shards, stacks
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.plan.model_source import ModelSource, ModelWithSaes
from sae_checks.plan.options import NO_CORPUS, Options
from sae_checks.plan.stacks import Stack
from sae_checks.release import hub
from sae_checks.release.release import Release, Sae

_N_DEFAULT_CONTEXT_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run measures. Every process of a run makes the same plan."""

    options: Options
    release: Release
    models: tuple[ModelWithSaes, ...]
    """more than one only if the SAEs were trained on different models; in the order of the release."""
    corpus: CorpusSource
    corpus_reason: str
    """why this text was chosen."""
    lambada: CorpusSource | None
    cbt: CorpusSource | None
    n_context_tokens: int
    """length that text sequences are cut to, in every model."""
    n_model_context_tokens: int | None
    """smallest context length of the models; None: no config.json gives one."""
    measures_ablation: bool
    """whether zero ablation is measured beside the splice; takes as long again."""

    def model_of(self, sae: Sae) -> ModelSource:
        """The model in which *sae*, one of the release, is measured."""
        return next(model.source for model in self.models if sae.sae_id in model.sae_ids)

    @property
    def texts(self) -> dict[str, CorpusSource | None]:
        """The texts by the option that names them; None: there is none."""
        return {"--sae-corpus": self.corpus, "--sae-lambada": self.lambada, "--sae-cbt": self.cbt}

    @property
    def n_checks(self) -> int:
        """
        Number of checks that may raise a false alarm, over the whole release, whatever --sae-id and -k select.

        Stacks are counted as if there were one per SAE; there are fewer. A baseline doubles the number, since every
        check is then compared with it as well.
        """
        n_each = sum(not check.is_exact for check in checks.CHECKS)
        return self.release.n_saes * n_each * (1 if self.options.baseline is None else 2)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The SAEs that are spliced together."""
        return stacks.of(self.release)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Ids of everything that can be judged: the SAEs, then the stacks."""
        return (*self.release.sae_ids, *(stack.stack_id for stack in self.stacks))

    @property
    def subjects_of_shard(self) -> tuple[str, ...]:
        """The `subjects` that this run judges; all of them without --sae-shard."""
        if self.options.shard is None:
            return self.subjects
        stack_ids = tuple(stack.stack_id for stack in self.stacks)
        return shards.parse(self.options.shard).members(self.release.sae_ids, stack_ids)


def make(options: Options, release: Release, model: ModelSource | None = None) -> Plan:
    """
    Choose the models, the corpora and the context length of a run.

    The default context is the model's, but at most 1024 tokens or twice the longest training context, whichever is
    more: enough to see what happens beyond the training context without paying for a context of 128,000 tokens. With
    several models, the smallest of their contexts is used for all. *model* is that of all SAEs, if it is in memory.
    Datasets are pinned later, by `pin_texts`.

    Raises:
        UsageError: a needed option is missing, or the model, context or shard cannot be used.
        HubError: a repository cannot be pinned, or the model's configuration cannot be fetched.
    """
    _check_shard(options, release)
    release = _with_train_context(release, options.n_train_context_tokens)
    if model is not None:
        models: tuple[ModelWithSaes, ...] = (ModelWithSaes(source=model, sae_ids=release.sae_ids),)
    else:
        models = model_source.find_all(options, release)
    n_available = min((n for n in (model.source.n_context_tokens() for model in models) if n is not None), default=None)
    if n_available is not None and options.n_context_tokens is not None and options.n_context_tokens > n_available:
        raise errors.context_too_long(options.n_context_tokens, n_available)
    corpus, corpus_reason = _find_text(options, release)
    longest = max((s.n_training_context_tokens or 0 for s in release.saes if isinstance(s, Sae)), default=0)
    n_default = max(_N_DEFAULT_CONTEXT_TOKENS, 2 * longest)
    return Plan(
        options=options,
        release=release,
        models=models,
        corpus=corpus,
        corpus_reason=corpus_reason,
        lambada=_find_corpus(options.lambada, release.lambada, corpus_source.LAMBADA, release),
        cbt=_find_corpus(options.cbt, release.cbt, corpus_source.CBT, release),
        n_context_tokens=options.n_context_tokens or min(n_default, n_available or n_default),
        n_model_context_tokens=n_available,
        measures_ablation=options.profile == "full",
    )


def pin_texts(settled: Plan, options: Collection[str]) -> Plan:
    """
    Pin the datasets that the values of these *options* are, such as "--sae-lambada".

    A text that the Hub does not give is an error of the checks that need it, see `CorpusSource.problem`.

    Raises:
        HubError: the Hub says that it has no such dataset, or denies it, and an option names it.
    """
    for flag, source in settled.texts.items():
        if flag not in options or source is None or source.wanted is None or source.problem is not None:
            continue
        field = flags.key_of(flag).removeprefix("sae_")
        is_asked = getattr(settled.options, field) is not None
        try:
            pinned, reason = _pinned(source, settled.corpus_reason)
        except errors.HubError as problem:
            if is_asked and not isinstance(problem, errors.HubBusyError):
                raise
            pinned, reason = replace(source, problem=str(errors.text_not_given(flag, source.name, str(problem)))), None
        changed: dict[str, Any] = {field: pinned} if reason is None else {field: pinned, "corpus_reason": reason}
        settled = replace(settled, **changed)
    return settled


def _pinned(source: CorpusSource, reason: str) -> tuple[CorpusSource, str | None]:
    """*source* at a commit; of the SAEs' training text also why it, or the default text, was chosen."""
    assert source.wanted is not None
    if not source.wanted.is_training_text:
        return source.pinned(), None
    found = corpus_source.training_text(source.wanted.repo_id)
    if isinstance(found, CorpusSource):
        return found, reason
    default = corpus_source.find(corpus_source.TEXT.name, split=corpus_source.TEXT.split)
    return default.pinned(), f"the default, since the SAEs' own training text cannot be used: {found.reason}"


def _check_shard(options: Options, release: Release) -> None:
    if options.shard is None:
        return
    if shards.parse(options.shard).n_shards > len(release.saes):
        raise errors.too_many_shards(options.shard, len(release.saes))


def _with_train_context(release: Release, n_tokens: int | None) -> Release:
    """
    The release with a training context of *n_tokens* for the SAEs whose configuration does not say it.

    Raises:
        UsageError: a configuration says another.
    """
    if n_tokens is None:
        return release
    described = [sae for sae in release.saes if isinstance(sae, Sae)]
    others = [sae for sae in described if sae.n_training_context_tokens not in (None, n_tokens)]
    if others:
        raise errors.train_context_differs(
            n_tokens, others[0].n_training_context_tokens or 0, [s.sae_id for s in others]
        )
    saes = (replace(sae, n_training_context_tokens=n_tokens) if isinstance(sae, Sae) else sae for sae in release.saes)
    return replace(release, saes=tuple(saes))


def _has_default_corpora(release: Release) -> bool:
    # the default corpora are on the Hub: a release on disk is judged without the network
    return release.revision is not None


def _find_text(options: Options, release: Release) -> tuple[CorpusSource, str]:
    """The text to measure on, and why it was chosen."""
    default = corpus_source.TEXT
    if options.corpus is not None:
        return corpus_source.find(options.corpus, split=default.split), "--sae-corpus"
    if release.corpus is not None:
        return CorpusSource(path=release.corpus), "the release's own"
    if not _has_default_corpora(release):
        raise errors.option_needed("--sae-corpus", options.release, "held-out text")
    training_texts = {sae.dataset_path for sae in release.saes if isinstance(sae, Sae)} - {None}
    path = training_texts.pop() if len(training_texts) == 1 else None
    if path is not None and path not in corpus_source.KNOWN_TEXTS:
        raise errors.text_of_publisher(options.release, path)
    if path is None:
        text = corpus_source.find(default.name, split=default.split)
        return text, "the default, since the SAEs do not name one text that they were trained on"
    wanted = corpus_source.Wanted(repo_id=path, is_training_text=True)
    return CorpusSource(wanted=wanted, split=default.split), "the SAEs' own training text"


def _find_corpus(
    name: str | None, shipped: Path | None, default: corpus_source.DefaultDataset, release: Release
) -> CorpusSource | None:
    """
    The corpus *name*, else the one *shipped* with the release, else the default dataset; None if there is none.

    A *name* `:CONFIG` is another configuration of the default dataset, `none` is no corpus. Only releases of the Hub
    have default datasets, and not offline, since datasets are streamed.
    """
    if name == NO_CORPUS:
        return None
    if name is None and shipped is not None:
        return CorpusSource(path=shipped)
    if name is None and (hub.is_offline() or not _has_default_corpora(release)):
        return None
    name = name or default.name
    if name.startswith(":"):
        name = default.name.partition(":")[0] + name
    return corpus_source.find(name, split=default.split)
