"""What will be measured, settled before anything heavy is imported: options + release -> one plan. Ground."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_checks import checks, errors
from sae_checks.plan import corpus_source, shards, stacks
from sae_checks.plan.corpus_source import CorpusPlace
from sae_checks.plan.options import Options
from sae_checks.plan.stacks import Stack
from sae_checks.release import hub, registry
from sae_checks.release.release import Release, Sae

_N_DEFAULT_CONTEXT_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFiles:
    """A model in TransformerLens's own format, on disk."""

    name: str
    """the official one: what TransformerLens converts depends on that."""
    config: Path
    weights: Path
    """a pickle."""
    tokenizer: Path
    """a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFormat:
    """A model that TransformerLens reads from its own files; transformers cannot."""

    repo: hub.HubRepo
    weights: str
    """the pickle's path in it."""
    tokenizer: hub.HubRepo

    def fetched(self) -> OwnFiles:
        """
        Configuration, weights and tokenizer, fetched if need be.

        Raises:
            HubError: the Hub does not give them.
        """
        return OwnFiles(
            name=self.repo.repo_id,
            config=hub.fetch(self.repo, "config.json"),
            weights=hub.fetch(self.repo, self.weights),
            tokenizer=hub.fetch_folder(self.tokenizer, _is_needed_of_tokenizer),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlace:
    """Where the language model lies."""

    folder: Path | None
    repo: hub.HubRepo | None
    """one of the two."""
    own_format: OwnFormat | None = None
    """None: transformers' format."""

    @property
    def source(self) -> str:
        """The folder, or `org/name@commit`, and the tokenizer's where that lies elsewhere."""
        if self.repo is None:
            return str(self.folder)
        elsewhere = f", tokenizer {self.own_format.tokenizer.source}" if self.own_format is not None else ""
        return self.repo.source + elsewhere

    @property
    def tokenizer_repo_id(self) -> str | None:
        """What the Hub calls the tokenizer; None: it lies in a folder, whose name says little."""
        repo = self.repo if self.own_format is None else self.own_format.tokenizer
        return repo.repo_id if repo is not None else None

    def fetched(self) -> Path:
        """
        The folder with its configuration, safetensors and tokenizer in transformers' format, fetched if need be.

        Raises:
            HubError: the Hub does not give them.
        """
        if self.folder is not None:
            return self.folder
        assert self.repo is not None
        return hub.fetch_folder(self.repo, _is_needed_of_model)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOfSaes:
    """A language model and the SAEs that are measured in it."""

    place: ModelPlace
    sae_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run, settled. The same on every process."""

    options: Options
    release: Release
    models: tuple[ModelOfSaes, ...]
    """one, but for a release whose SAEs were trained on several; in the order of the release."""
    corpus: CorpusPlace
    corpus_reason: str
    """why this text: asked for, or what speaks for it."""
    lambada: CorpusPlace | None
    cbt: CorpusPlace | None
    n_context_tokens: int
    """length that text sequences are cut to, for every model."""
    n_model_context_tokens: int | None
    """the smallest of the models' contexts; None: no config.json says one."""

    def model_of(self, sae: Sae) -> ModelPlace:
        """The model that *sae*, one of the release, is measured in."""
        return next(model.place for model in self.models if sae.sae_id in model.sae_ids)

    @property
    def n_checks(self) -> int:
        """
        That may raise a false alarm, of the whole release: of all its SAEs, whatever --sae-id and -k left of them.

        There are fewer stacks than SAEs; they are counted as if there were as many. With a baseline every check asks
        twice.
        """
        n_each = sum(not check.is_exact for check in checks.CHECKS)
        return self.release.n_saes * n_each * (1 if self.options.baseline is None else 2)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The SAEs that are spliced together."""
        return stacks.of(self.release)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whatever can be judged: the SAEs, then the stacks of them."""
        return (*self.release.sae_ids, *(stack.stack_id for stack in self.stacks))

    @property
    def own_subjects(self) -> tuple[str, ...]:
        """Those of `subjects` that this run judges: all of them, or those of its shard."""
        if self.options.shard is None:
            return self.subjects
        stack_ids = tuple(stack.stack_id for stack in self.stacks)
        return shards.parse(self.options.shard).members(self.release.sae_ids, stack_ids)

    @property
    def model(self) -> ModelPlace:
        """The only model, for those who can have but one."""
        (only,) = self.models
        return only.place


def make(options: Options, release: Release) -> Plan:
    """
    Settle where the model and the corpora come from and how long sequences are.

    The default context is the model's, but at most 1024 tokens or twice the longest training context, whichever is
    more: enough to see what happens beyond the training context, without paying for a context of 128,000. Where the
    SAEs of a release were trained on several models, the smallest of their contexts holds for all.

    Raises:
        UsageError: an option is needed and missing, or the model, context or shard cannot be used.
        HubError: the Hub does not give the model's configuration.
    """
    if options.shard is not None:
        if shards.parse(options.shard).n_shards > len(release.saes):
            raise errors.too_many_shards(options.shard, len(release.saes))
        if options.calibrate is not None:
            expected = "no --sae-shard: limits are made from the whole of a run"
            raise errors.bad_option("--sae-calibrate", str(options.calibrate), expected)
    models = _models(options, release)
    n_available = min((n for n in (_context_of(model.place) for model in models) if n is not None), default=None)
    if n_available is not None and options.n_context_tokens is not None and options.n_context_tokens > n_available:
        raise errors.context_too_long(options.n_context_tokens, n_available)
    on_hub = release.revision is not None  # only such a release has default corpora: they are on the Hub, too
    corpus, corpus_reason = _text_place(options, release, on_hub=on_hub)
    longest = max((s.n_training_context_tokens or 0 for s in release.saes if isinstance(s, Sae)), default=0)
    wide = max(_N_DEFAULT_CONTEXT_TOKENS, 2 * longest)
    return Plan(
        options=options,
        release=release,
        models=models,
        corpus=corpus,
        corpus_reason=corpus_reason,
        lambada=_corpus_place(options.lambada, release.lambada, corpus_source.LAMBADA, options, on_hub=on_hub),
        cbt=_corpus_place(options.cbt, release.cbt, corpus_source.CBT, options, on_hub=on_hub),
        n_context_tokens=options.n_context_tokens or min(wide, n_available or wide),
        n_model_context_tokens=n_available,
    )


def _text_place(options: Options, release: Release, *, on_hub: bool) -> tuple[CorpusPlace, str]:
    """The text to measure on, and why this one."""
    default = corpus_source.TEXT
    if options.corpus is not None:
        return corpus_source.find(options.corpus, split=default.split, offline=options.offline), "as asked"
    if release.corpus is not None:
        return CorpusPlace(path=release.corpus), "the release's own"
    if not on_hub:
        raise errors.option_needed("--sae-corpus", release.name, "held-out text")
    named = {sae.dataset_path for sae in release.saes if isinstance(sae, Sae)} - {None}
    path = named.pop() if len(named) == 1 else None
    if path is None:
        reason = "the SAEs do not name one text that they were trained on"
    else:
        found = corpus_source.training_text(path, offline=options.offline)
        if isinstance(found, CorpusPlace):
            return found, "the SAEs' own training text"
        reason = f"the SAEs' own training text cannot be used: {found.reason}"
    return corpus_source.find(
        default.name, split=default.split, offline=options.offline
    ), f"the default, since {reason}"


def _corpus_place(
    asked: str | None, embedded: Path | None, default: corpus_source.Default, options: Options, *, on_hub: bool
) -> CorpusPlace | None:
    """
    What was asked for, else what the release brings, else for a release of the Hub the default dataset.

    `:CONFIG` asks for another configuration of the default. Offline there is no default: datasets are streamed.
    """
    if asked is None and embedded is not None:
        return CorpusPlace(path=embedded)
    if asked is None and (options.offline or not on_hub):
        return None
    name = asked or default.name
    if name.startswith(":"):
        name = default.name.partition(":")[0] + name
    return corpus_source.find(name, split=default.split, offline=options.offline)


def _models(options: Options, release: Release) -> tuple[ModelOfSaes, ...]:
    """The model that was asked for, or that the release brings, for all SAEs; else those that its SAEs name."""
    asked = options.model or (str(release.model) if isinstance(release.model, Path) else None)
    if asked is not None:
        name, _, revision = asked.partition("@")
        place = _model_place(asked, None, options) or _model_place(name, revision or None, options)
        if place is None:
            raise errors.no_model(asked, "there is no such folder, and it is no name on the Hub")
        return (ModelOfSaes(place=place, sae_ids=release.sae_ids),)
    users: dict[ModelPlace, list[str]] = {}  # ids of SAEs
    found: dict[tuple[str, str | None], ModelPlace | None] = {}
    for sae in release.saes:
        if isinstance(sae, Sae):
            users.setdefault(_named_model(sae, release, options, found), []).append(sae.sae_id)
    if not users:  # no SAE can be used: whatever model is given, their checks say why
        raise errors.option_needed("--sae-model", release.name, "a language model in Hugging Face format")
    return tuple(ModelOfSaes(place=place, sae_ids=tuple(sae_ids)) for place, sae_ids in users.items())


def _named_model(
    sae: Sae, release: Release, options: Options, found: dict[tuple[str, str | None], ModelPlace | None]
) -> ModelPlace:
    """The model that *sae* names, else the one that the registry does; *found* remembers what was pinned before."""
    names = [str(name) for name in (sae.model_name, release.model) if name]
    for key in ((name, sae.model_revision) for name in names):
        if key not in found:
            found[key] = _model_place(*key, options)
        if (place := found[key]) is not None:
            return place
    missing = f"a language model ({names[0]!r} is not on the Hub)" if names else f"a language model for {sae.sae_id}"
    raise errors.option_needed("--sae-model", release.name, missing)


def _model_place(name: str, revision: str | None, options: Options) -> ModelPlace | None:
    """The model in the folder *name*, or what the Hub calls so; None where neither can be."""
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise errors.no_model(name, f"a folder has no revision {revision!r}")
        if not any(folder.glob("*.safetensors")):
            raise errors.no_model(name, "there is no .safetensors file in it")
        return ModelPlace(folder=folder, repo=None)
    on_hub = registry.hub_model_name(name)
    if on_hub is None or ("/" in on_hub and not hub.is_repo_id(on_hub)):
        return None
    repo = hub.pin(on_hub, revision=revision, offline=options.offline)
    if any(_is_needed_of_model(file.path) and file.path.endswith(".safetensors") for file in repo.files):
        return ModelPlace(folder=None, repo=repo)
    own_format = _own_format(repo, options)
    if own_format is None:
        raise errors.no_model(repo.source, "there is no .safetensors file in it")
    return ModelPlace(folder=None, repo=repo, own_format=own_format)


def _own_format(repo: hub.HubRepo, options: Options) -> OwnFormat | None:
    """How TransformerLens reads *repo* from its own files; None where it does not."""
    # TransformerLens takes the first such file, too
    weights = next((file.path for file in repo.files if file.path.endswith("final.pth")), None)
    if weights is None or not registry.is_in_own_format(repo.repo_id):
        return None
    if options.backend == "transformers":
        raise errors.only_in_transformer_lens(repo.source)
    if not options.allow_pickle:
        raise errors.model_pickle_refused(repo.source, weights)
    named = _config_of(ModelPlace(folder=None, repo=repo)).get("tokenizer_name")
    name = registry.hub_model_name(named) if isinstance(named, str) else None
    if name is None or ("/" in name and not hub.is_repo_id(name)):
        raise errors.no_model(repo.source, "its config.json names no tokenizer of the Hub")
    return OwnFormat(repo=repo, weights=weights, tokenizer=hub.pin(name, offline=options.offline))


def _is_needed_of_model(path: str) -> bool:
    """In the top folder: configuration, tokenizer, safetensors; never pickles or code."""
    return _is_needed_of_tokenizer(path) or ("/" not in path and path.endswith(".safetensors"))


def _is_needed_of_tokenizer(path: str) -> bool:
    return "/" not in path and path.endswith((".json", ".txt", ".model"))


def _context_of(model: ModelPlace) -> int | None:
    """The context length in the model's config.json; None where it does not say."""
    config = _config_of(model)
    found = (config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx"))
    return next((n for n in found if isinstance(n, int) and n > 0), None)


def _config_of(model: ModelPlace) -> dict[str, Any]:  # a dict: the keys are those of whoever made the model
    try:
        path = hub.fetch(model.repo, "config.json") if model.repo else Path(model.source) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        return {**config, **config.get("text_config", {})}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise errors.no_model(model.source, f"its config.json cannot be read ({errors.shown(problem)})") from None
