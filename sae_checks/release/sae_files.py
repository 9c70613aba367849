"""The files of one SAE, in a folder or on the Hub: detects their format, fetches and checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from sae_checks import errors
from sae_checks.release import configuration, converters, hub
from sae_checks.release.configuration import HubFolder, Sae
from sae_checks.release.safetensors_header import HeaderError, TensorShape, read_shapes

CFG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SPARSIFY_WEIGHTS_FILE = "sae.safetensors"
SCALER_FILE = "activation_scaler.json"
"""Beside a checkpoint: the factor by which SAE Lens's trainer scales activations until it folds the factor in."""


def read_sae(sae_id: str, folder: Path) -> Sae:
    """
    Read the SAE in *folder*, from its cfg.json and the header of its weights.

    Raises:
        SaeError: the configuration or the weights cannot be used, or a setting would have to be ignored.
    """
    cfg = configuration.read_cfg(sae_id, folder / CFG_FILE)
    if converters.is_sparsify(cfg):
        sae = converters.describe_sparsify(sae_id, cfg, folder, weights=folder / SPARSIFY_WEIGHTS_FILE, remote=None)
    else:
        sae = _describe_sae_lens(sae_id, cfg, folder, remote=None, overrides={}, registered_factor=None)
    check_weights(sae)
    return sae


def read_remote_sae(
    sae_id: str, remote: HubFolder, overrides: Mapping[str, Any], norm_scaling_factor: float | None = None
) -> Sae:
    """
    Read the SAE in a folder of the Hub, from its cfg.json alone.

    Args:
        sae_id: its id in the release.
        remote: its folder.
        overrides: the registry's corrections of cfg.json.
        norm_scaling_factor: the registry's factor.

    Raises:
        SaeError: as `read_sae`.
        HubError: a file cannot be fetched.
    """
    folder = _fetch(remote, CFG_FILE, max_bytes=configuration.MAX_CFG_BYTES).parent
    cfg = configuration.read_cfg(sae_id, folder / CFG_FILE)
    weights = SPARSIFY_WEIGHTS_FILE if converters.is_sparsify(cfg) else WEIGHTS_FILE
    if weights not in remote.names:
        raise _missing(sae_id, weights, remote.names)
    if converters.is_sparsify(cfg):
        above = HubFolder(repo=remote.repo, path=PurePosixPath(remote.path).parent.as_posix())
        if converters.SPARSIFY_RUN_FILE in above.names:
            _fetch(above, converters.SPARSIFY_RUN_FILE)
        return converters.describe_sparsify(sae_id, cfg, folder, weights=folder / weights, remote=remote)
    if norm_scaling_factor is None and SCALER_FILE in remote.names:
        _fetch(remote, SCALER_FILE)
    # TRAP: SAE Lens applies overrides to the top level only; entries about the model are in `metadata`
    return _describe_sae_lens(
        sae_id, cfg, folder, remote=remote, overrides=overrides, registered_factor=norm_scaling_factor
    )


def fetch_weights(sae: Sae) -> None:
    """
    Fetch the weights of *sae* if they are not on disk, and check their shapes.

    Raises:
        SaeError: the weights cannot be fetched, or they do not agree with cfg.json.
    """
    if sae.remote is None or sae.weights is None:
        return
    try:
        _fetch(sae.remote, sae.weights.name)
    except errors.HubError as problem:
        raise errors.SaeError(str(problem)) from None
    check_weights(sae)


def _fetch(remote: HubFolder, name: str, *, max_bytes: int | None = None) -> Path:
    return hub.fetch(remote.repo, remote.file(name), max_bytes=max_bytes)


def _describe_sae_lens(
    sae_id: str,
    cfg: Mapping[str, object],
    folder: Path,
    *,
    remote: HubFolder | None,
    overrides: Mapping[str, Any],
    registered_factor: float | None,
) -> Sae:
    """Describe an SAE in SAE Lens's own format: a saved SAE or a checkpoint of its trainer."""
    scaler = folder / SCALER_FILE
    read_factor = registered_factor is None and scaler.is_file()
    factor: Any = configuration.read_cfg(sae_id, scaler).get("scaling_factor") if read_factor else registered_factor
    sae = configuration.describe(
        sae_id, cfg, folder / WEIGHTS_FILE, remote=remote, overrides=overrides, norm_scaling_factor=factor
    )
    if read_factor and factor is not None and sae.norm_scaling_factor is None:
        raise errors.bad_cfg(sae_id, f"it asks for no scaling of activations, and {SCALER_FILE} holds a factor")
    is_checkpoint = "metadata" in cfg and "decoder_init_norm" in cfg  # only training uses this entry
    return replace(sae, format="checkpoint") if is_checkpoint else sae


def check_weights(sae: Sae) -> None:
    """
    Check that the weights have the shapes that cfg.json states, before SAE Lens allocates memory for them.

    Raises:
        SaeError: there are no weights, only a pickle, or tensors of other names, shapes or types.
    """
    expected = {"W_dec": (sae.d_sae, sae.d_out), "W_enc": (sae.d_in, sae.d_sae), "b_dec": (sae.d_out,)}
    if sae.format == "sparsify":
        expected["encoder.weight"] = (sae.d_sae, sae.d_in)
    shapes = _shapes(sae.sae_id, sae.weights) if sae.weights is not None else ()
    for tensor in shapes:
        if not tensor.is_real:
            raise errors.not_real(sae.sae_id, tensor.name, tensor.dtype)
        if tensor.name in expected and tensor.shape != expected[tensor.name]:
            problem = f"{tensor.name} is {tensor.shape}, cfg.json (d_in, d_out, d_sae) asks for {expected[tensor.name]}"
            raise errors.bad_weights(sae.sae_id, problem)
    if not any(tensor.name == "W_dec" for tensor in shapes):
        raise errors.tensors_renamed(sae.sae_id, ["W_dec"], [tensor.name for tensor in shapes])


def _shapes(sae_id: str, weights: Path) -> tuple[TensorShape, ...]:
    if not weights.is_file():
        raise _missing(sae_id, weights.name, [file.name for file in weights.parent.iterdir()])
    try:
        return read_shapes(weights)
    except (HeaderError, OSError) as problem:
        raise errors.bad_weights(sae_id, str(problem)) from None


def _missing(sae_id: str, weights: str, beside: Sequence[str]) -> errors.SaeError:
    pickles = sorted(path for path in beside if converters.is_pickle(path))
    return errors.only_pickle(sae_id, pickles[0]) if pickles else errors.bad_weights(sae_id, f"no {weights}")
