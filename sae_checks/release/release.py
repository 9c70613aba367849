"""A release name, Hub repository or folder -> pinned SAEs, from their configurations alone: no torch, no weights."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sae_checks import errors
from sae_checks.release import converters, hub, registry
from sae_checks.release.configuration import BrokenSae, HubFolder, Sae
from sae_checks.release.sae_files import CFG_FILE, read_remote_sae, read_sae

__all__ = ["EMBEDDED_RELEASES", "BrokenSae", "Release", "Sae", "resolve", "sha256_of"]

_EMBEDDED = Path(__file__).parents[1] / "demo" / "files"
EMBEDDED_RELEASES = ("demo", "demo-broken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything one run judges."""

    name: str
    source: str
    """the folder, the Hub repository, or 'embedded'."""
    revision: str | None
    """the commit it was fetched at; None for what lies on disk."""
    saes: tuple[Sae | BrokenSae, ...]
    model: Path | str | None
    """a folder: its own, for all SAEs; a name: the registry's, for SAEs that name none that the Hub knows."""
    corpus: Path | None
    lambada: Path | None
    cbt: Path | None = None
    n_saes_in_all: int | None = None
    """with those that --sae-id left out; None: these are all."""

    @property
    def n_saes(self) -> int:
        """Of the whole release."""
        return len(self.saes) if self.n_saes_in_all is None else self.n_saes_in_all

    @property
    def sae_ids(self) -> tuple[str, ...]:
        """In the release's order: by depth, then by name."""
        return tuple(sae.sae_id for sae in self.saes)

    def sae(self, sae_id: str) -> Sae:
        """
        The one called *sae_id*.

        Raises:
            SaeError: it cannot be measured.
        """
        found = next(sae for sae in self.saes if sae.sae_id == sae_id)
        if isinstance(found, BrokenSae):
            raise errors.SaeError(found.problem)
        return found


def resolve(
    name: str,
    *,
    patterns: Sequence[str] = (),
    revision: str | None = None,
    offline: bool = False,
    allow_pickle: bool = False,
) -> Release:
    """
    The release called *name*, narrowed to SAEs whose id matches one of *patterns* (fnmatch; none: all).

    In this order: an embedded release, a folder, a name of SAE Lens's registry, a Hub repository `org/name[@revision]`.

    Raises:
        UsageError: no such release, no SAE in it, none that matches, or pickles that were not allowed.
        HubError: the Hub does not tell what a repository holds.
    """
    repo_id, _, at = name.partition("@")
    if name in EMBEDDED_RELEASES:
        release = _embedded(name)
    elif (folder := _folder(name)) is not None:
        release = _of_folder(name, folder)
    elif (entry := registry.lookup(name)) is not None:
        release = _registered(entry, patterns, revision, offline=offline, allow_pickle=allow_pickle)
    elif hub.is_repo_id(repo_id):
        release = _of_repo(hub.pin(repo_id, revision=at or revision, offline=offline), patterns)
    else:
        known = (*EMBEDDED_RELEASES, *registry.names(), *_folders_beside(Path(name)))
        raise errors.unknown_release(name, difflib.get_close_matches(name, known, n=3, cutoff=0.6), EMBEDDED_RELEASES)
    if not patterns:
        return release
    kept = tuple(sae for sae in release.saes if _matches(sae.sae_id, patterns))
    if not kept:
        raise errors.no_sae_matches(patterns, release.sae_ids)
    return replace(release, saes=kept, n_saes_in_all=release.n_saes)


def matching(sae_ids: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """Those of *sae_ids* that match one of *patterns* (fnmatch); no pattern: none."""
    return tuple(sae_id for sae_id in sae_ids if patterns and _matches(sae_id, patterns))


def _matches(sae_id: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(sae_id, pattern) for pattern in patterns)


def _of_folder(name: str, folder: Path) -> Release:
    saes = _in_folder(folder)
    if not saes:
        raise errors.empty_release(name)
    return Release(
        name=errors.shown(folder.resolve().name),
        source=str(folder),
        revision=None,
        saes=saes,
        model=None,
        corpus=None,
        lambada=None,
    )


def _registered(
    entry: registry.RegisteredRelease,
    patterns: Sequence[str],
    revision: str | None,
    *,
    offline: bool,
    allow_pickle: bool,
) -> Release:
    wanted = [sae for sae in entry.saes if _matches(sae.sae_id, patterns)]
    if not wanted:
        raise errors.no_sae_matches(patterns, [sae.sae_id for sae in entry.saes])
    if entry.pickle_suffix is not None and not allow_pickle:
        raise errors.pickles_needed(entry.name, entry.pickle_suffix)
    repo = hub.pin(entry.repo_id, revision=revision, offline=offline)
    if entry.conversion is None:
        factors = {sae.sae_id: sae.norm_scaling_factor for sae in wanted}
        saes = _remote({sae.sae_id: sae.path for sae in wanted}, repo, entry.overrides, factors)
    else:
        described = converters.describe(entry, wanted, repo, allow_pickle=allow_pickle)
        saes = tuple(sorted(described, key=_place_in_release))
    l0 = {sae.sae_id: sae.l0 for sae in wanted}
    saes = tuple(replace(sae, recorded_l0=l0[sae.sae_id]) if isinstance(sae, Sae) else sae for sae in saes)
    return _of_hub(entry.name, repo, saes, model=entry.model, n_saes=len(entry.saes))


def _of_repo(repo: hub.HubRepo, patterns: Sequence[str]) -> Release:
    """Every cfg.json of the repository beside which an SAE can lie; in its top folder, too."""
    folders = [PurePosixPath(file.path).parent for file in repo.files if PurePosixPath(file.path).name == CFG_FILE]
    ids = {_id(repo.repo_id if str(folder) == "." else str(folder)): str(folder) for folder in folders}
    if not ids:
        raise errors.empty_release(repo.source)
    wanted = {sae_id: path for sae_id, path in ids.items() if _matches(sae_id, patterns)}
    if not wanted:
        raise errors.no_sae_matches(patterns, list(ids))
    saes = _remote(wanted, repo, {}, {})
    return _of_hub(repo.repo_id, repo, saes, model=None, n_saes=len(ids))


def _of_hub(
    name: str, repo: hub.HubRepo, saes: tuple[Sae | BrokenSae, ...], *, model: str | None, n_saes: int
) -> Release:
    return Release(
        name=name,
        source=repo.repo_id,
        revision=repo.commit,
        saes=saes,
        model=model,
        corpus=None,
        lambada=None,
        n_saes_in_all=n_saes,
    )


def _remote(
    paths: Mapping[str, str], repo: hub.HubRepo, overrides: Mapping[str, Any], factors: Mapping[str, float | None]
) -> tuple[Sae | BrokenSae, ...]:
    """The SAEs at *paths* (by id, as *factors*) of *repo*; configurations are fetched side by side."""

    def read(sae_id: str) -> Sae | BrokenSae:
        try:
            return read_remote_sae(sae_id, HubFolder(repo=repo, path=paths[sae_id]), overrides, factors.get(sae_id))
        except errors.SaeError as problem:
            return BrokenSae(sae_id=sae_id, problem=str(problem))

    with ThreadPoolExecutor(8) as pool:
        return tuple(sorted(pool.map(read, paths), key=_place_in_release))


def _folder(name: str) -> Path | None:
    """The folder that *name* may be the path of."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # too long a name, no access, the home of nobody
        return None


def sha256_of(path: Path) -> str:
    """Hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _embedded(name: str) -> Release:
    saes = _in_folder(_EMBEDDED / "saes")
    if name == "demo-broken":
        (damaged,) = _in_folder(_EMBEDDED / "saes-broken")
        saes = tuple(damaged if sae.sae_id == damaged.sae_id else sae for sae in saes)
    return Release(
        name=name,
        source="embedded",
        revision=None,
        saes=saes,
        model=_EMBEDDED / "model",
        corpus=_EMBEDDED / "text.jsonl",
        lambada=_EMBEDDED / "lambada.jsonl",
        cbt=_EMBEDDED / "cbt.jsonl",
    )


def _folders_beside(path: Path) -> tuple[str, ...]:
    """Folders that a mistyped path may have meant."""
    try:
        return tuple(str(path.parent / folder.name) for folder in path.parent.iterdir() if folder.is_dir())
    except OSError:
        return ()


def _in_folder(folder: Path) -> tuple[Sae | BrokenSae, ...]:
    """Every cfg.json in or below *folder* is one SAE; its id is its path from there."""
    found: list[Sae | BrokenSae] = []
    for cfg_path in sorted(folder.rglob(CFG_FILE)):
        place = cfg_path.parent
        sae_id = place.resolve().name if place == folder else place.relative_to(folder).as_posix()
        try:
            found.append(read_sae(_id(sae_id), place))
        except errors.SaeError as problem:
            found.append(BrokenSae(sae_id=_id(sae_id), problem=str(problem)))
    return tuple(sorted(found, key=_place_in_release))


def _id(path: str) -> str:
    """Printable, and two different paths stay different."""
    return errors.shown(path.replace("\\", "\\\\"), n_most=100_000)


def _place_in_release(sae: Sae | BrokenSae) -> tuple[float, str]:
    return (sae.depth if isinstance(sae, Sae) else 1_000_000, sae.sae_id)
