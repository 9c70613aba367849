"""Whether two processes compute the same numbers: a fingerprint of a model, of what runs it, and of what it gives."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
import xxhash
from torch import nn

from sae_checks.model.interface import LanguageModel
from sae_checks.release import hooks

_N_PROBED_TOKENS = 32
_PACKAGES = (
    *("torch", "transformers", "transformer-lens", "numpy", "triton", "kernels"),
    *("flash-attn", "flash-attn-3", "xformers", "torchao", "accelerate"),
)
"""That compute, or decide what does; those that are not installed are named as such."""
_SETTINGS = ("ATEN_", "CUBLAS", "CUDNN_", "DNNL_", "KMP_", "MKL_", "NVIDIA_TF32", "OMP_", "ONEDNN_", "TORCH", "PYTORCH")
"""Beginnings of the names of environment variables that choose kernels and threads."""


class Computed(LanguageModel, Protocol):
    """A language model that says what computes it."""

    @property
    def module(self) -> nn.Module:
        """What runs, with every weight."""


def fingerprint(model: Computed) -> str:
    """
    sha256 of what a clean pass depends on beside its tokens and hooks.

    The weights as they lie in memory (and the hashes of their files), the configuration, modules, versions, our own
    code, device, threads and switches of torch, and last what the model makes of a few tokens, to the bit: what has
    been forgotten in this list and matters shows there.
    """
    facts = {name: value for name, value in asdict(model.facts).items() if name != "source"}
    named = {
        "facts": facts,
        "configuration": _configuration(model.module),
        "modules": repr(model.module),
        "weights": _of_weights(model.module),
        "versions": [_version(name) for name in _PACKAGES],
        "code": _of_code(),
        "machine": _machine(model.device),
        "probe": _of_probe(model),
    }
    return sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def _configuration(module: Any) -> str:
    """Of transformers or TransformerLens, less the folder; and the implementation of attention, which has no name."""
    config = module.config if hasattr(module, "config") else module.cfg
    named = {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}
    attention = getattr(config, "_attn_implementation", None)
    return f"{attention} {json.dumps(named, sort_keys=True, default=str)}"


def checksum(tensor: torch.Tensor) -> str:
    """Of the type, shape and bytes of *tensor*: 128 bits against damage and mistakes, not against an attacker."""
    here = tensor.detach().cpu().contiguous()
    digest = xxhash.xxh3_128(f"{here.dtype} {tuple(here.shape)} ".encode())
    digest.update(here.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _of_weights(module: nn.Module) -> list[tuple[str, str]]:
    """Parameters and buffers, those that no file holds included."""
    return [(name, checksum(tensor)) for name, tensor in (*module.named_parameters(), *module.named_buffers())]


def _of_probe(model: LanguageModel) -> str:
    n_tokens = min(_N_PROBED_TOKENS, model.facts.n_context_tokens)
    tokens = (torch.arange(n_tokens, device=model.device) * 7 % min(_N_PROBED_TOKENS, model.n_logits))[None]
    return checksum(model.clean(tokens, ()).hidden)


def _of_code() -> str:
    digest = sha256()
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(hooks.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"no {name}"


def _machine(device: torch.device) -> list[str]:
    """What chooses among kernels that differ in the last bits."""
    sdp: Any = torch.backends.cuda  # Any: torch has no types for these
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    found = [
        torch.__config__.show(),
        torch.__config__.parallel_info(),  # the number of threads, and what was asked of OpenMP and MKL
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
        torch.get_float32_matmul_precision(),
        f"{torch.get_default_dtype()} {torch.are_deterministic_algorithms_enabled()} {torch.backends.mkldnn.enabled}",
        f"{sdp.flash_sdp_enabled()} {sdp.mem_efficient_sdp_enabled()} {sdp.math_sdp_enabled()}",
        f"{matmul.allow_tf32} {matmul.allow_fp16_reduced_precision_reduction} {cudnn.allow_tf32}",
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_SETTINGS)),
    ]
    if device.type == "cuda":
        found += [torch.cuda.get_device_name(device), f"{torch.version.cuda} {cudnn.version()}"]
    return found


def _processor() -> str:
    """The model of the CPU, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "CPU part", "Features"))})
    )
