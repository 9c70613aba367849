"""
Releases in other formats than SAE Lens's own: its converters describe and load them, confined to one repository.

The converters ask the Hub for `main` and read pickles. For the time of a call the names that they do this with are
replaced: what they get is the pinned commit, checked, from the cache if the run is offline; a pickle only if that was
asked for, and then for its tensors alone; and nothing else of the network.
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
"""In the folder above its SAEs: what sparsify was asked to train."""

_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".npz")
_NETWORK = ("huggingface_hub", "requests", "urllib", "urllib3", "httpx", "httpx2")
_ONE_AT_A_TIME = threading.RLock()  # the names of a module are the whole process's


def is_pickle(path: str) -> bool:
    """Whether loading the file *path* may run code, or used to."""
    return path.endswith(_PICKLE_SUFFIXES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converters:
    """SAE Lens's converters, with nothing in reach but one repository at its commit."""

    repo: hub.HubRepo
    allow_pickle: bool
    files: dict[str, Path] = field(default_factory=dict)
    """what they read so far, by its path in the repository."""

    def hf_hub_download(
        self,
        repo_id: str,
        filename: str,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        force_download: bool = False,  # noqa: ARG002 -- what the cache holds of a commit is what the commit holds
    ) -> str:
        """As huggingface_hub's."""
        from huggingface_hub.errors import EntryNotFoundError

        path = f"{subfolder}/{filename}" if subfolder else filename
        self._check(repo_id, revision)
        if self.repo.file(path) is None:
            where = "the cache of " if self.repo.offline else ""
            raise EntryNotFoundError(f"no file {path} in {where}{self.repo.source}")  # some converters try another then
        if is_pickle(path) and not self.allow_pickle:
            raise errors.pickle_refused(self.repo.repo_id, path)
        is_cfg = path.endswith((".json", ".yaml"))
        n_bytes_most = configuration.N_CFG_BYTES_MOST if is_cfg else None
        self.files[path] = hub.fetch(self.repo, path, n_bytes_most=n_bytes_most)
        return str(self.files[path])

    def get_safetensors_tensor_shapes(self, repo_id: str, filename: str) -> dict[str, list[int]]:
        """As SAE Lens's own."""
        self._check(repo_id, None)
        return hub.tensor_shapes(self.repo, filename)

    def _check(self, repo_id: str, revision: str | None) -> None:
        if repo_id != self.repo.repo_id or revision not in (None, self.repo.commit):
            raise PermissionError(f"it asks for {repo_id}@{revision or 'main'} beside {self.repo.source}")


class _Refused:
    """In place of a name that reaches out."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: object, **__: object) -> None:
        raise PermissionError(f"it reaches out by {self._name}")

    def __getattr__(self, _: str) -> None:
        self()


class _TensorsOnly:
    """A module whose `load` is always called with what keeps a pickle from running code."""

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
    SAE Lens warns, also when it is imported; the caller's `-W error` is for the caller's code.

    The filters are those of the process: what another thread would set and reset, it would for the main one, too. Who
    starts a thread is quiet on its behalf.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def confined(repo: hub.HubRepo, *, allow_pickle: bool) -> Iterator[Converters]:
    """For a while, SAE Lens's converters reach *repo* at its commit and nothing else."""
    import numpy as np
    import torch
    from sae_lens.loading import pretrained_sae_loaders as module

    converters = Converters(repo=repo, allow_pickle=allow_pickle)
    names = vars(module)
    replaced = {name: _Refused(name) for name, value in names.items() if _reaches_out(value)} | {
        "hf_hub_download": converters.hf_hub_download,
        "get_safetensors_tensor_shapes": converters.get_safetensors_tensor_shapes,
        "torch": _TensorsOnly(torch, weights_only=True),  # not yet torch.load's default in every version
        "np": _TensorsOnly(np, allow_pickle=False),
    }
    with _ONE_AT_A_TIME:
        before = {name: names[name] for name in replaced}
        names.update(replaced)
        try:
            yield converters
        finally:
            names.update(before)


def _reaches_out(value: object) -> bool:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    is_exception = isinstance(value, type) and issubclass(value, BaseException)  # they are caught by their names
    return str(name).partition(".")[0] in _NETWORK and not is_exception


def describe(
    entry: registry.RegisteredRelease,
    wanted: Sequence[registry.RegisteredSae],
    repo: hub.HubRepo,
    *,
    allow_pickle: bool,
) -> tuple[Sae | BrokenSae, ...]:
    """What SAE Lens's converter says of the SAEs *wanted* of *entry*, in their order, from configurations alone."""

    def one(sae: registry.RegisteredSae) -> Sae | BrokenSae:
        try:
            if _is_cross_layer(entry, sae):
                raise errors.cross_layer(sae.sae_id)
            remote = HubFolder(repo=repo, path=sae.path)
            described = configuration.describe(
                sae.sae_id,
                _converted(sae.sae_id, entry),
                None,
                remote=remote,
                norm_scaling_factor=sae.norm_scaling_factor,
            )
        except errors.SaeError as problem:
            return BrokenSae(sae_id=sae.sae_id, problem=str(problem))
        return replace(described, format="registered", release=entry.name, allow_pickle=allow_pickle)

    with quiet(), confined(repo, allow_pickle=allow_pickle), ThreadPoolExecutor(8) as pool:
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

        get_pretrained_saes_directory()  # here, or each thread would parse it
        return tuple(pool.map(one, wanted))


def _is_cross_layer(entry: registry.RegisteredRelease, sae: registry.RegisteredSae) -> bool:
    return entry.conversion == "mntss_clt_layer_transcoder" or (entry.conversion == "gemma_3" and "clt" in sae.path)


def _converted(sae_id: str, entry: registry.RegisteredRelease) -> Mapping[str, object]:
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    try:
        return dict(load_sae_config_from_huggingface(entry.name, sae_id))
    except errors.SaeError:
        raise
    except errors.HubError as problem:
        raise errors.SaeError(str(problem)) from None
    except Exception as problem:  # noqa: BLE001 -- whatever a converter trips over, it is this SAE that cannot be read
        raise errors.not_converted(sae_id, str(entry.conversion), f"{type(problem).__name__}: {problem}") from None


def is_sparsify(cfg: Mapping[str, object]) -> bool:
    """Whether *cfg* is what EleutherAI's sparsify writes beside its weights."""
    says_width = "num_latents" in cfg or "expansion_factor" in cfg
    return says_width and "k" in cfg and not {"architecture", "hook_name", "hook_point", "metadata"} & {*cfg}


def describe_sparsify(
    sae_id: str, cfg: Mapping[str, object], folder: Path, *, weights: Path, remote: HubFolder | None
) -> Sae:
    """
    An SAE of sparsify, by SAE Lens's converter, whose guesses about the training run are not taken for knowledge.

    Raises:
        SaeError: SAE Lens would take it for something else than it is.
    """
    place = remote.path if remote is not None else str(folder.resolve())
    if not re.fullmatch(r"layers[._]\d+", Path(place).name):  # SAE Lens reads `layers.3.mlp` as the residual stream
        raise errors.unknown_hook(sae_id, Path(place).name, ["layers.L, the output of block L"])
    for key in ("transcode", "skip_connection", "signed", "embed_skip", "gram_lookup"):
        if cfg.get(key):
            raise errors.not_supported(sae_id, key, str(cfg[key]), "false")
    if cfg.get("activation", "topk") != "topk":
        raise errors.not_supported(sae_id, "activation", str(cfg["activation"]), "topk")
    overrides = _corrected_sparsify(cfg)
    try:
        with quiet():
            from sae_lens.loading import pretrained_sae_loaders as loaders

            found = loaders.get_sparsify_config_from_disk(folder.resolve(), cfg_overrides=overrides)
            converted = loaders.handle_config_defaulting(found)
    except Exception as problem:  # noqa: BLE001 -- whatever SAE Lens trips over, it is this SAE that cannot be read
        raise errors.not_converted(sae_id, "sparsify", f"{type(problem).__name__}: {problem}") from None
    run_file = folder.parent / SPARSIFY_RUN_FILE
    run = configuration.read_cfg(sae_id, run_file) if run_file.is_file() else {}
    told = {"model_name": run.get("model", ""), "context_size": run.get("ctx_len"), "prepend_bos": None}
    metadata = {**converted["metadata"], **told}
    described = configuration.describe(sae_id, {**converted, "metadata": metadata}, weights, remote=remote)
    return replace(described, format="sparsify", overrides=overrides)


def _corrected_sparsify(cfg: Mapping[str, object]) -> dict[str, Any]:  # a dict: SAE Lens's cfg_overrides
    """
    What SAE Lens 6.54 takes to be otherwise than sparsify does: the decoder's bias is always subtracted from the input
    first, and 0 latents stand for the expansion factor.

    Source: https://github.com/EleutherAI/sparsify, sparsify/sparse_coder.py, `SparseCoder.__init__` and `encode`.
    """
    n_latents, d_in, factor = (cfg.get(key) for key in ("num_latents", "d_in", "expansion_factor"))
    overrides: dict[str, Any] = {"apply_b_dec_to_input": True}
    if not n_latents and type(d_in) is int and type(factor) is int:
        overrides["d_sae"] = d_in * factor
    return overrides
