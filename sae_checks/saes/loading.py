"""Files of an SAE -> SAE Lens's module with its norm scaling folded in, loaded by SAE Lens's own code."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sae_checks import errors
from sae_checks.release import converters
from sae_checks.release.configuration import Format, Sae
from sae_checks.release.sae_files import SCALER_FILE, fetch_weights

Files = dict[str, Path]
"""local paths of the files that were read, by name in the release."""


def load(described: Sae, device: torch.device) -> tuple[Any, Files]:  # Any: sae_lens ships no types
    """
    Load an SAE in float32.

    Returns:
        SAE Lens's module, and the files that it was made from.

    Raises:
        SaeError: the SAE cannot be fetched or loaded, its shapes are not those of its configuration, a weight is no
            real, finite number, or the SAE divides by a length that is zero.
    """
    fetch_weights(described)
    try:
        with converters.quiet():
            sae, files = _LOADERS[described.format](described, str(device))
            _fold(described, sae)
    except errors.SaeError:
        raise
    except errors.HubError as problem:
        raise errors.SaeError(str(problem)) from None
    except Exception as problem:
        raise _not_loaded(described, problem) from problem
    _check(described, sae)
    return sae, files


def _load_sae_lens(described: Sae, device: str) -> tuple[Any, Files]:
    """Load an SAE saved by `SAE.save_model` or `TrainingSAE.save_inference_model`."""
    import sae_lens
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    assert described.weights is not None
    converter = partial(_overridden, sae_lens_disk_loader, described)
    sae = sae_lens.SAE.load_from_disk(described.weights.parent, device=device, dtype="float32", converter=converter)
    return sae, _files_beside(described)


def _load_checkpoint(described: Sae, device: str) -> tuple[Any, Files]:
    """Load a checkpoint of SAE Lens's trainer, converted as the trainer does it when training ends."""
    import sae_lens

    assert described.weights is not None
    training = sae_lens.TrainingSAE.load_from_disk(described.weights.parent, device=device, dtype="float32")
    _fold(described, training)
    weights = training.state_dict()
    training.process_state_dict_for_saving_inference(weights)
    cfg = training.cfg.get_inference_sae_cfg_dict()
    sae = sae_lens.SAE.load_from_disk(
        described.weights.parent, device=device, dtype="float32", converter=lambda *_, **__: (cfg, weights)
    )
    return sae, _files_beside(described)


def _load_sparsify(described: Sae, device: str) -> tuple[Any, Files]:
    import sae_lens
    from sae_lens.loading.pretrained_sae_loaders import sparsify_disk_loader
    from safetensors.torch import load_file

    assert described.weights is not None
    weights = described.weights

    def converter(path: Path, device: str, cfg_overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        cfg, tensors = _overridden(sparsify_disk_loader, described, path.resolve(), device, cfg_overrides)
        # TRAP: SAE Lens 6.54 transposes W_dec, although sparsify saves it as (d_sae, d_in)
        return cfg, {**tensors, "W_dec": load_file(weights, device=device)["W_dec"].float().contiguous()}

    sae = sae_lens.SAE.load_from_disk(weights.parent, device=device, dtype="float32", converter=converter)
    return sae, _files_beside(described)


def _load_registered(described: Sae, device: str) -> tuple[Any, Files]:
    """Load an SAE by the converter that SAE Lens's registry names, confined to the pinned commit."""
    from sae_lens import SAE

    assert described.remote is not None
    with converters.confined(described.remote.repo, allow_pickle=described.allow_pickle) as downloads:
        sae, _, _ = SAE.from_pretrained_with_cfg_and_sparsity(
            described.release, described.sae_id, device=device, dtype="float32"
        )
    return sae, dict(downloads.files)


def _take(described: Sae, device: str) -> tuple[Any, Files]:
    """
    Make an inference SAE of SAE Lens from one that the caller holds, a training SAE or not.

    The weights are shared where they are float32 on *device*; the caller's module keeps its mode, gradients and hooks.
    """
    import sae_lens

    module = described.module
    for name, weight in module.state_dict().items():
        if not weight.is_floating_point():
            raise errors.not_real(described.sae_id, name, str(weight.dtype))
    weights = {name: weight.detach() for name, weight in module.state_dict().items()}
    if isinstance(module, sae_lens.TrainingSAE):
        module.process_state_dict_for_saving_inference(weights)
        cfg = module.cfg.get_inference_sae_cfg_dict()
    else:
        module.process_state_dict_for_saving(weights)
        cfg = module.cfg.to_dict()
    sae = sae_lens.SAE.from_dict({**cfg, "device": device, "dtype": "float32"})
    weights = {name: weight.to(device=device, dtype=torch.float32) for name, weight in weights.items()}
    sae.process_state_dict_for_loading(weights)
    sae.load_state_dict(weights, assign=True)
    return sae, {}


_LOADERS: dict[Format, Callable[[Sae, str], tuple[Any, Files]]] = {
    "sae_lens": _load_sae_lens,
    "checkpoint": _load_checkpoint,
    "sparsify": _load_sparsify,
    "in_memory": _take,
    "registered": _load_registered,
}


def _overridden(
    read: Callable[..., Any], described: Sae, path: Path, device: str, cfg_overrides: dict[str, Any]
) -> Any:
    """Call *read*, a loader of SAE Lens, with the registry's corrections, as `from_pretrained` does."""
    return read(path, device, {**described.overrides, **cfg_overrides})


def _fold(described: Sae, sae: Any) -> None:
    """Fold the norm scaling factor into the weights. SAE Lens only warns if it is missing, and uses a wrong scale."""
    if sae.cfg.normalize_activations != "expected_average_only_in":
        return
    if described.norm_scaling_factor is None:
        raise errors.norm_not_supported(described.sae_id, "expected_average_only_in")
    sae.fold_activation_norm_scaling_factor(described.norm_scaling_factor)


def _files_beside(described: Sae) -> Files:
    assert described.weights is not None
    names = [described.weights.name, *([SCALER_FILE] if described.norm_scaling_factor is not None else [])]
    paths = {name: described.weights.parent / name for name in names}
    return {name: path for name, path in paths.items() if path.is_file()}  # no scaler file: the registry has the factor


def _not_loaded(described: Sae, problem: Exception) -> errors.SaeError:
    """What SAE Lens's *problem* says: the tensors that are missing or unknown, if it is that."""
    missing, unknown = (
        re.findall(r'"([^"]+)"', found[1])
        if (found := re.search(rf"{kind} key\(s\) in state_dict: (.*)", str(problem)))
        else []
        for kind in ("Missing", "Unexpected")
    )
    if missing and unknown:
        return errors.tensors_renamed(described.sae_id, missing, unknown)
    if missing:
        return errors.tensors_missing(described.sae_id, missing, described.architecture)
    if unknown:
        return errors.tensors_unknown(described.sae_id, unknown, described.architecture)
    return errors.bad_weights(described.sae_id, f"{type(problem).__name__}: {problem}")


def _check(described: Sae, sae: Any) -> None:
    expected = {
        "W_dec": (described.d_sae, described.d_out),
        "W_enc": (described.d_in, described.d_sae),
        "b_dec": (described.d_out,),
    }
    for name, weight in sae.state_dict().items():
        if not torch.isfinite(weight).all():
            n_bad = int((~torch.isfinite(weight)).sum())
            raise errors.bad_weights(described.sae_id, f"{n_bad} of {weight.numel()} numbers in {name} are not finite")
        if name in expected and tuple(weight.shape) != expected[name]:
            problem = f"{name} is {tuple(weight.shape)}, its configuration asks for {expected[name]}"
            raise errors.bad_weights(described.sae_id, problem)
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        zero = (sae.W_dec.norm(dim=-1) == 0).nonzero().flatten().tolist()
        if zero:
            raise errors.zero_decoder_rows(described.sae_id, [str(row) for row in zero])
