"""
Releases in other formats than SAE Lens's own, described and loaded by SAE Lens's converters.

The converters ask the Hub for `main` and read pickles. While one runs, the functions that it does this with are
replaced: it gets checked files of the pinned commit, from the cache if the run is offline; a pickle only if pickles are
allowed, and then only its tensors; and no other access to the network.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from sae_checks import errors
from sae_checks.release import configuration, hub, registry
from sae_checks.release.configuration import BrokenSae, HubFolder, Sae

SPARSIFY_RUN_FILE = "config.json"
"""sparsify's configuration of the training run, in the folder above the SAEs."""

_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".npz")
_NETWORK = ("huggingface_hub", "requests", "urllib", "urllib3", "httpx", "httpx2")
_ONE_AT_A_TIME = threading.RLock()  # WHY: names of a module are replaced, which all threads share


def is_pickle(path: str) -> bool:
    """Whether *path* is a pickle, or an .npz that may contain one."""
    return path.endswith(_PICKLE_SUFFIXES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedDownloads:
    """Stand-ins for the functions by which converters download; they serve one repository at its commit."""

    repo: hub.HubRepo
    allow_pickle: bool
    files: dict[str, Path] = field(default_factory=dict)
    """local paths of the files read so far, by path in the repository."""

    def hf_hub_download(
        self,
        repo_id: str,
        filename: str,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        force_download: bool = False,  # noqa: ARG002 -- files of a commit never change
    ) -> str:
        """In place of huggingface_hub's function."""
        from huggingface_hub.errors import EntryNotFoundError

        path = f"{subfolder}/{filename}" if subfolder else filename
        self._check(repo_id, revision)
        if self.repo.file(path) is None:
            where = "the cache of " if self.repo.offline else ""
            # EntryNotFoundError: some converters catch it and try another file
            raise EntryNotFoundError(f"no file {path} in {where}{self.repo.source}")
        if is_pickle(path) and not self.allow_pickle:
            raise errors.pickle_refused(self.repo.repo_id, path)
        is_cfg = path.endswith((".json", ".yaml"))
        max_bytes = configuration.MAX_CFG_BYTES if is_cfg else None
        self.files[path] = hub.fetch(self.repo, path, max_bytes=max_bytes)
        return str(self.files[path])

    def get_safetensors_tensor_shapes(self, repo_id: str, filename: str) -> dict[str, list[int]]:
        """In place of SAE Lens's function."""
        self._check(repo_id, None)
        return hub.tensor_shapes(self.repo, filename)

    def _check(self, repo_id: str, revision: str | None) -> None:
        if repo_id != self.repo.repo_id or revision not in (None, self.repo.commit):
            raise PermissionError(f"it asks for {repo_id}@{revision or 'main'} beside {self.repo.source}")


class _RefusesNetwork:
    """In place of a module or function that uses the network: raises PermissionError when it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: object, **__: object) -> None:
        raise PermissionError(f"it reaches out by {self._name}")

    def __getattr__(self, _: str) -> None:
        self()


class _TensorsOnly:
    """In place of a module: adds *always* to the arguments of `load`, so that a pickle cannot run code."""

    def __init__(self, module: ModuleType, **always: bool) -> None:
        self._module = module
        self._always = always

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def load(self, *args: Any, **kwargs: Any) -> Any:
        return self._module.load(*args, **{**kwargs, **self._always})


@contextmanager
def quiet() -> Iterator[None]:
    """
    Silence warnings of SAE Lens, so that the user's `-W error` applies to the user's code alone.

    TRAP: all threads share the filters, so only the main thread changes them. Other threads do nothing; whoever starts
    one enters `quiet` for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def confined(repo: hub.HubRepo, *, allow_pickle: bool) -> Iterator[PinnedDownloads]:
    """Confine SAE Lens's converters to *repo* at its commit within the block."""
    import numpy as np
    import torch
    from sae_lens.loading import pretrained_sae_loaders as module

    downloads = PinnedDownloads(repo=repo, allow_pickle=allow_pickle)
    names = vars(module)
    replaced = {name: _RefusesNetwork(name) for name, value in names.items() if _uses_network(value)} | {
        "hf_hub_download": downloads.hf_hub_download,
        "get_safetensors_tensor_shapes": downloads.get_safetensors_tensor_shapes,
        "torch": _TensorsOnly(torch, weights_only=True),  # not torch.load's default in every version
        "np": _TensorsOnly(np, allow_pickle=False),
    }
    with _ONE_AT_A_TIME:
        originals = {name: names[name] for name in replaced}
        names.update(replaced)
        try:
            yield downloads
        finally:
            names.update(originals)


def _uses_network(value: object) -> bool:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    is_exception = isinstance(value, type) and issubclass(value, BaseException)  # `except` clauses still need these
    return str(name).partition(".")[0] in _NETWORK and not is_exception


def describe(
    entry: registry.RegisteredRelease,
    selected: Sequence[registry.RegisteredSae],
    repo: hub.HubRepo,
    *,
    allow_pickle: bool,
) -> tuple[Sae | BrokenSae, ...]:
    """Describe the *selected* SAEs of *entry* in their order, from the configurations that its converter returns."""

    def describe_one(sae: registry.RegisteredSae) -> Sae | BrokenSae:
        try:
            if _is_cross_layer(entry, sae):
                raise errors.cross_layer(sae.sae_id)
            remote = HubFolder(repo=repo, path=sae.path)
            described = configuration.describe(
                sae.sae_id,
                _converted_cfg(sae.sae_id, entry),
                None,
                remote=remote,
                norm_scaling_factor=sae.norm_scaling_factor,
            )
        except (errors.SaeError, errors.HubError) as problem:
            is_withheld = isinstance(problem, errors.HubError)
            return BrokenSae(sae_id=sae.sae_id, problem=str(problem), is_withheld=is_withheld)
        return replace(described, format="registered", release=entry.name, allow_pickle=allow_pickle)

    with quiet(), confined(repo, allow_pickle=allow_pickle), ThreadPoolExecutor(8) as pool:
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

        get_pretrained_saes_directory()  # WHY: it caches its result; otherwise every thread would parse the registry
        return tuple(pool.map(describe_one, selected))


def _is_cross_layer(entry: registry.RegisteredRelease, sae: registry.RegisteredSae) -> bool:
    return entry.conversion == "mntss_clt_layer_transcoder" or (entry.conversion == "gemma_3" and "clt" in sae.path)


def _converted_cfg(sae_id: str, entry: registry.RegisteredRelease) -> Mapping[str, object]:
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    try:
        return dict(load_sae_config_from_huggingface(entry.name, sae_id))
    except (errors.SaeError, errors.HubError):
        raise
    except Exception as problem:  # noqa: BLE001 -- any failure of a converter breaks this SAE alone
        raise errors.not_converted(sae_id, str(entry.conversion), f"{type(problem).__name__}: {problem}") from None


def is_sparsify(cfg: Mapping[str, object]) -> bool:
    """Whether *cfg* is a configuration of EleutherAI's sparsify."""
    has_width = "num_latents" in cfg or "expansion_factor" in cfg
    return has_width and "k" in cfg and not {"architecture", "hook_name", "hook_point", "metadata"} & {*cfg}


def describe_sparsify(
    sae_id: str, cfg: Mapping[str, object], folder: Path, *, weights: Path, remote: HubFolder | None
) -> Sae:
    """
    Describe an SAE of sparsify by SAE Lens's converter, without the converter's guesses about the training run.

    Raises:
        SaeError: SAE Lens would misread the SAE.
    """
    name = Path(remote.path if remote is not None else folder.resolve()).name
    if not re.fullmatch(r"layers[._]\d+", name):  # TRAP: SAE Lens reads `layers.3.mlp` as the residual stream
        raise errors.unknown_hook(sae_id, name, ["layers.L, the output of block L"])
    for key in ("transcode", "skip_connection", "signed", "embed_skip", "gram_lookup"):
        if cfg.get(key):
            raise errors.not_supported(sae_id, key, str(cfg[key]), "false")
    if cfg.get("activation", "topk") != "topk":
        raise errors.not_supported(sae_id, "activation", str(cfg["activation"]), "topk")
    overrides = _sparsify_corrections(cfg)
    try:
        with quiet():
            from sae_lens.loading import pretrained_sae_loaders as loaders

            found = loaders.get_sparsify_config_from_disk(folder.resolve(), cfg_overrides=overrides)
            converted = loaders.handle_config_defaulting(found)
    except Exception as problem:  # noqa: BLE001 -- any failure of SAE Lens breaks this SAE alone
        raise errors.not_converted(sae_id, "sparsify", f"{type(problem).__name__}: {problem}") from None
    run_file = folder.parent / SPARSIFY_RUN_FILE
    run = configuration.read_cfg(sae_id, run_file) if run_file.is_file() else {}
    stated = {"model_name": run.get("model", ""), "context_size": run.get("ctx_len"), "prepend_bos": None}
    metadata = {**converted["metadata"], **stated}
    described = configuration.describe(sae_id, {**converted, "metadata": metadata}, weights, remote=remote)
    return replace(described, format="sparsify", overrides=overrides)


def _sparsify_corrections(cfg: Mapping[str, object]) -> dict[str, Any]:  # a dict: SAE Lens's cfg_overrides
    """
    Corrections of two mistakes of SAE Lens 6.54: sparsify always subtracts the decoder's bias from the input, and its
    `num_latents` 0 means that the expansion factor gives the width.

    Source: https://github.com/EleutherAI/sparsify, sparsify/sparse_coder.py, `SparseCoder.__init__` and `encode`.
    """
    n_latents, d_in, factor = (cfg.get(key) for key in ("num_latents", "d_in", "expansion_factor"))
    overrides: dict[str, Any] = {"apply_b_dec_to_input": True}
    if not n_latents and type(d_in) is int and type(factor) is int:
        overrides["d_sae"] = d_in * factor
    return overrides
