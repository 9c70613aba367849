"""Release name, Hub repository or folder -> pinned SAEs, read from their configurations without torch or weights."""

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
    """The SAEs that one run judges, and the model and corpora that come with them."""

    name: str
    source: str
    """the folder, the Hub repository's id, or 'embedded'."""
    revision: str | None
    """commit of the Hub repository; None: the release is on disk."""
    saes: tuple[Sae | BrokenSae, ...]
    model: Path | str | None
    """folder of the model for all SAEs, or the registry's name of a model for SAEs that name none on the Hub."""
    corpus: Path | None
    lambada: Path | None
    cbt: Path | None = None
    ids_before_selection: tuple[str, ...] | None = None
    """ids of the SAEs before --sae-id selected some; None: nothing was left out."""

    @property
    def n_saes(self) -> int:
        """Number of SAEs in the whole release, whatever --sae-id selects."""
        return len(self.all_ids)

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Ids of the SAEs in the whole release."""
        return self.sae_ids if self.ids_before_selection is None else self.ids_before_selection

    @property
    def sae_ids(self) -> tuple[str, ...]:
        """Ids of the selected SAEs, by depth and then by name."""
        return tuple(sae.sae_id for sae in self.saes)

    def sae(self, sae_id: str) -> Sae:
        """
        The SAE called *sae_id*.

        Raises:
            SaeError: the SAE is broken.
        """
        found = next(sae for sae in self.saes if sae.sae_id == sae_id)
        if isinstance(found, BrokenSae):
            raise errors.SaeError(found.problem)
        return found


def resolve(
    name: str,
    *,
    patterns: Sequence[str] = (),
    allow_pickle: bool = False,
) -> Release:
    """
    Find the release called *name*.

    *name* is looked up as an embedded release, a folder, a release of SAE Lens's registry `name[@revision]` and a Hub
    repository `org/name[@revision]`, in this order. The revision is a branch, tag or commit; without one: main.

    Args:
        name: the release.
        patterns: fnmatch patterns of SAE ids to select; none: all SAEs.
        allow_pickle: accept releases whose weights are pickles.

    Raises:
        UsageError: there is no such release, no SAE in it or none that matches, or pickles are needed and not allowed.
        HubError: the repository cannot be pinned, or the Hub gives no configuration of an SAE.
    """
    unpinned, _, revision = name.partition("@")
    if name in EMBEDDED_RELEASES:
        release = _embedded(name)
    elif (folder := _folder(name)) is not None:
        release = _from_folder(name, folder)
    elif (entry := registry.lookup(unpinned)) is not None:
        release = _from_registry(entry, patterns, revision or None, allow_pickle=allow_pickle)
    elif hub.is_repo_id(unpinned):
        release = _from_repo(hub.pin(unpinned, revision=revision or None), patterns)
    else:
        known = (*EMBEDDED_RELEASES, *registry.names(), *_folders_beside(Path(name)))
        raise errors.unknown_release(name, difflib.get_close_matches(name, known, n=3, cutoff=0.6), EMBEDDED_RELEASES)
    if not patterns:
        return release
    selected = tuple(sae for sae in release.saes if _matches(sae.sae_id, patterns))
    if not selected:
        raise errors.no_sae_matches(patterns, release.sae_ids)
    return replace(release, saes=selected, ids_before_selection=release.all_ids)


def matching(sae_ids: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The *sae_ids* that match one of *patterns* (fnmatch); without patterns, none."""
    return tuple(sae_id for sae_id in sae_ids if patterns and _matches(sae_id, patterns))


def _matches(sae_id: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(sae_id, pattern) for pattern in patterns)


def _from_folder(name: str, folder: Path) -> Release:
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


def _from_registry(
    entry: registry.RegisteredRelease,
    patterns: Sequence[str],
    revision: str | None,
    *,
    allow_pickle: bool,
) -> Release:
    selected = [sae for sae in entry.saes if _matches(sae.sae_id, patterns)]
    if not selected:
        raise errors.no_sae_matches(patterns, [sae.sae_id for sae in entry.saes])
    if entry.pickle_suffix is not None and not allow_pickle:
        raise errors.pickles_needed(entry.name, entry.pickle_suffix)
    repo = hub.pin(entry.repo_id, revision=revision)
    if entry.conversion is None:
        factors = {sae.sae_id: sae.norm_scaling_factor for sae in selected}
        saes = _read_remote({sae.sae_id: sae.path for sae in selected}, repo, entry.overrides, factors)
    else:
        described = converters.describe(entry, selected, repo, allow_pickle=allow_pickle)
        saes = tuple(sorted(described, key=_by_depth))
    l0 = {sae.sae_id: sae.l0 for sae in selected}
    saes = tuple(replace(sae, recorded_l0=l0[sae.sae_id]) if isinstance(sae, Sae) else sae for sae in saes)
    return _on_hub(entry.name, repo, saes, model=entry.model, all_ids=tuple(sae.sae_id for sae in entry.saes))


def _from_repo(repo: hub.HubRepo, patterns: Sequence[str]) -> Release:
    """One SAE for every cfg.json of the repository; its id is its folder, or the repository's id for the top folder."""
    folders = [PurePosixPath(file.path).parent for file in repo.files if PurePosixPath(file.path).name == CFG_FILE]
    paths = {_id(repo.repo_id if str(folder) == "." else str(folder)): str(folder) for folder in folders}
    if not paths:
        raise errors.empty_release(repo.source)
    selected = {sae_id: path for sae_id, path in paths.items() if _matches(sae_id, patterns)}
    if not selected:
        raise errors.no_sae_matches(patterns, list(paths))
    saes = _read_remote(selected, repo, {}, {})
    return _on_hub(repo.repo_id, repo, saes, model=None, all_ids=tuple(paths))


def _on_hub(
    name: str, repo: hub.HubRepo, saes: tuple[Sae | BrokenSae, ...], *, model: str | None, all_ids: tuple[str, ...]
) -> Release:
    if all(isinstance(sae, BrokenSae) and sae.is_withheld for sae in saes):  # WHY: nothing could be measured
        raise errors.HubError(*[sae.problem for sae in saes if isinstance(sae, BrokenSae)][:1])
    return Release(
        name=name,
        source=repo.repo_id,
        revision=repo.commit,
        saes=saes,
        model=model,
        corpus=None,
        lambada=None,
        ids_before_selection=all_ids,
    )


def _read_remote(
    paths: Mapping[str, str], repo: hub.HubRepo, overrides: Mapping[str, Any], factors: Mapping[str, float | None]
) -> tuple[Sae | BrokenSae, ...]:
    """Read the SAEs of *repo*, their configurations in parallel; *paths* and norm scaling *factors* are by SAE id."""

    def read(sae_id: str) -> Sae | BrokenSae:
        try:
            return read_remote_sae(sae_id, HubFolder(repo=repo, path=paths[sae_id]), overrides, factors.get(sae_id))
        except (errors.SaeError, errors.HubError) as problem:
            is_withheld = isinstance(problem, errors.HubError)
            return BrokenSae(sae_id=sae_id, problem=str(problem), is_withheld=is_withheld)

    with ThreadPoolExecutor(8) as pool:
        return tuple(sorted(pool.map(read, paths), key=_by_depth))


def _folder(name: str) -> Path | None:
    """*name* as a folder; None if there is no such folder."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # the name is too long, access is denied, or ~user is unknown
        return None


def sha256_of(path: Path) -> str:
    """sha256 of the file's bytes, as hex."""
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
    """Folders in the parent of *path*, to suggest for a mistyped path."""
    try:
        return tuple(str(path.parent / folder.name) for folder in path.parent.iterdir() if folder.is_dir())
    except OSError:
        return ()


def _in_folder(folder: Path) -> tuple[Sae | BrokenSae, ...]:
    """One SAE for every cfg.json in or below *folder*; its id is its path relative to *folder*."""
    saes: list[Sae | BrokenSae] = []
    for cfg_path in sorted(folder.rglob(CFG_FILE)):
        sae_folder = cfg_path.parent
        path = sae_folder.resolve().name if sae_folder == folder else sae_folder.relative_to(folder).as_posix()
        sae_id = _id(path)
        try:
            saes.append(read_sae(sae_id, sae_folder))
        except errors.SaeError as problem:
            saes.append(BrokenSae(sae_id=sae_id, problem=str(problem)))
    return tuple(sorted(saes, key=_by_depth))


def _id(path: str) -> str:
    """A printable SAE id; different paths give different ids."""
    return errors.shown(path.replace("\\", "\\\\"), n_most=100_000)


def _by_depth(sae: Sae | BrokenSae) -> tuple[float, str]:
    return (sae.depth if isinstance(sae, Sae) else 1_000_000, sae.sae_id)
