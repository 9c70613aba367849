"""Where the language models of a plan lie: a folder, or a Hub repository at one commit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_checks import errors
from sae_checks.plan.options import Options
from sae_checks.release import hub, registry
from sae_checks.release.release import Release, Sae


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerLensFiles:
    """A model in TransformerLens's own file format, on disk."""

    name: str
    """official name: TransformerLens chooses its conversion by it."""
    config: Path
    weights: Path
    """a pickle."""
    tokenizer: Path
    """a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerLensRepo:
    """A Hub repository in TransformerLens's own file format, which transformers cannot read."""

    repo: hub.HubRepo
    weights: str
    """path of the pickle in the repository."""
    tokenizer: hub.HubRepo

    def fetch(self) -> TransformerLensFiles:
        """
        Fetch the configuration, weights and tokenizer that are not cached yet.

        Raises:
            HubError: a file cannot be fetched.
        """
        return TransformerLensFiles(
            name=self.repo.repo_id,
            config=hub.fetch(self.repo, "config.json"),
            weights=hub.fetch(self.repo, self.weights),
            tokenizer=hub.fetch_folder(self.tokenizer, _is_tokenizer_file),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInMemory:
    """A transformers model that the caller of the Python API holds. Any: no torch is imported here."""

    model: Any
    tokenizer: Any
    n_context_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where one language model lies: one of *folder*, *repo* and *in_memory* is given."""

    folder: Path | None
    repo: hub.HubRepo | None
    transformer_lens: TransformerLensRepo | None = None
    """None: the files are in transformers' format."""
    in_memory: ModelInMemory | None = None

    @property
    def name(self) -> str:
        """The folder, or `org/name@commit`, followed by the tokenizer's repository if that is another one."""
        if self.in_memory is not None:
            return "in memory"
        if self.repo is None:
            return str(self.folder)
        tokenizer = f", tokenizer {self.transformer_lens.tokenizer.source}" if self.transformer_lens is not None else ""
        return self.repo.source + tokenizer

    @property
    def tokenizer_repo_id(self) -> str | None:
        """The tokenizer's repository; None for a folder, whose name does not identify a tokenizer."""
        repo = self.repo if self.transformer_lens is None else self.transformer_lens.tokenizer
        return repo.repo_id if repo is not None else None

    def fetch(self) -> Path:
        """
        Fetch the files that are not cached yet.

        Returns:
            A folder with configuration, safetensors and tokenizer in transformers' format.

        Raises:
            HubError: a file cannot be fetched.
        """
        if self.folder is not None:
            return self.folder
        assert self.repo is not None
        return hub.fetch_folder(self.repo, _is_model_file)

    def read_config(self) -> dict[str, Any]:  # a dict: config.json has the keys of the model's author
        """
        The model's config.json, with the entries of its `text_config` on the top level.

        Raises:
            UsageError: the file cannot be read.
            HubError: the file cannot be fetched.
        """
        try:
            path = hub.fetch(self.repo, "config.json") if self.repo else Path(self.name) / "config.json"
            config = json.loads(path.read_text(encoding="utf-8"))
            return {**config, **config.get("text_config", {})}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as problem:
            raise errors.no_model(self.name, f"its config.json cannot be read ({errors.shown(problem)})") from None

    def n_context_tokens(self) -> int | None:
        """The context length in config.json; None if it gives none. Raises as `read_config`."""
        if self.in_memory is not None:
            return self.in_memory.n_context_tokens
        config = self.read_config()
        found = (config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx"))
        return next((n for n in found if isinstance(n, int) and n > 0), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWithSaes:
    """A language model and the SAEs that are measured in it."""

    source: ModelSource
    sae_ids: tuple[str, ...]


def find_all(options: Options, release: Release) -> tuple[ModelWithSaes, ...]:
    """
    The language models in which the SAEs of *release* are measured.

    A model given by --sae-model, or shipped with the release, serves all SAEs. Otherwise every SAE is measured in the
    model that its configuration names, or else in the one that the registry names.

    Raises:
        UsageError: no model is named, or a model cannot be used.
        HubError: a repository cannot be pinned.
    """
    given = options.model or (str(release.model) if isinstance(release.model, Path) else None)
    if given is not None:
        name, _, revision = given.partition("@")
        source = _find(given, None, options) or _find(name, revision or None, options)
        if source is None:
            raise errors.no_model(given, "there is no such folder, and it is no name on the Hub")
        return (ModelWithSaes(source=source, sae_ids=release.sae_ids),)
    sae_ids: dict[ModelSource, list[str]] = {}
    cache: dict[tuple[str, str | None], ModelSource | None] = {}
    for sae in release.saes:
        if isinstance(sae, Sae):
            sae_ids.setdefault(_find_for(sae, release, options, cache), []).append(sae.sae_id)
    if not sae_ids:  # every SAE is broken, and its checks say why whatever the model is
        raise errors.option_needed("--sae-model", options.release, "a language model in Hugging Face format")
    return tuple(ModelWithSaes(source=source, sae_ids=tuple(ids)) for source, ids in sae_ids.items())


def _find_for(
    sae: Sae, release: Release, options: Options, cache: dict[tuple[str, str | None], ModelSource | None]
) -> ModelSource:
    """The model that *sae* names, else the registry's; *cache* holds the models found so far by name and revision."""
    names = [str(name) for name in (sae.model_name, release.model) if name]
    for key in ((name, sae.model_revision) for name in names):
        if key not in cache:
            cache[key] = _find(*key, options)
        if (source := cache[key]) is not None:
            return source
    missing = f"a language model ({names[0]!r} is not on the Hub)" if names else f"a language model for {sae.sae_id}"
    raise errors.option_needed("--sae-model", options.release, missing)


def _find(name: str, revision: str | None, options: Options) -> ModelSource | None:
    """The model in the folder *name*, or of that name on the Hub; None if there is neither."""
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise errors.no_model(name, f"a folder has no revision {revision!r}")
        if not any(folder.glob("*.safetensors")):
            raise errors.no_model(name, "there is no .safetensors file in it")
        return ModelSource(folder=folder, repo=None)
    repo_id = registry.hub_model_name(name)
    if repo_id is None or ("/" in repo_id and not hub.is_repo_id(repo_id)):
        return None
    repo = hub.pin(repo_id, revision=revision)
    if any(_is_model_file(file.path) and file.path.endswith(".safetensors") for file in repo.files):
        return ModelSource(folder=None, repo=repo)
    transformer_lens = _find_transformer_lens(repo, options)
    if transformer_lens is None:
        raise errors.no_model(repo.source, "there is no .safetensors file in it")
    return ModelSource(folder=None, repo=repo, transformer_lens=transformer_lens)


def _find_transformer_lens(repo: hub.HubRepo, options: Options) -> TransformerLensRepo | None:
    """*repo* as TransformerLens reads it from its own files; None if TransformerLens does not know it."""
    # TransformerLens takes the first such file, too
    weights = next((file.path for file in repo.files if file.path.endswith("final.pth")), None)
    if weights is None or not registry.has_transformer_lens_files(repo.repo_id):
        return None
    if not options.allow_pickle:
        raise errors.model_pickle_refused(repo.source, weights)
    alias = ModelSource(folder=None, repo=repo).read_config().get("tokenizer_name")
    name = registry.hub_model_name(alias) if isinstance(alias, str) else None
    if name is None or ("/" in name and not hub.is_repo_id(name)):
        raise errors.no_model(repo.source, "its config.json names no tokenizer of the Hub")
    return TransformerLensRepo(repo=repo, weights=weights, tokenizer=hub.pin(name))


def _is_model_file(path: str) -> bool:
    """Whether transformers needs *path*: a configuration, tokenizer or safetensors file in the top folder."""
    return _is_tokenizer_file(path) or ("/" not in path and path.endswith(".safetensors"))


def _is_tokenizer_file(path: str) -> bool:
    return "/" not in path and path.endswith((".json", ".txt", ".model"))
