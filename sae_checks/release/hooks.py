"""Hook names: parses TransformerLens's names, and translates module names of transformers into them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

Place = Literal[
    "resid_pre", "z", "attn_out", "resid_mid", "mlp_in", "normalized_mlp_in", "mlp_module_in", "mlp_out", "resid_post"
]
"""
Places within a block, in the order of the computation.

`mlp_in` is the residual stream as only the MLP's branch reads it. `normalized_mlp_in` is the same divided by its scale,
before the norm's weights. `mlp_module_in` is the input of the MLP itself, after the norm's weights.
"""

_PLACE_OF: dict[str, Place] = {
    "hook_resid_pre": "resid_pre",
    "attn.hook_z": "z",
    "hook_attn_out": "attn_out",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "mlp_in",
    "ln2.hook_normalized": "normalized_mlp_in",
    "mlp.hook_in": "mlp_module_in",  # TransformerBridge's name, which SAE Lens uses for some transcoders
    "hook_mlp_out": "mlp_out",
    "hook_resid_post": "resid_post",
}
_HOOK_OF_MODULE: dict[str, str] = {
    "": "hook_resid_post",
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}
_ORDER: dict[Place, float] = {
    "resid_pre": 0.0,
    "z": 0.1,
    "attn_out": 0.2,
    "resid_mid": 0.3,
    "mlp_in": 0.4,
    "normalized_mlp_in": 0.5,
    "mlp_module_in": 0.6,
    "mlp_out": 0.7,
    "resid_post": 1.0,
}
_NAME = re.compile(r"blocks\.(\d{1,4})\.([a-z_0-9.]+)")
_MODULE = re.compile(r"(?:(?:model|transformer|gpt_neox|language_model)\.)*(?:layers|h)\.(\d{1,4})(?:\.([a-z_0-9.]+))?")

PLACES = tuple(_PLACE_OF.values())
KNOWN = tuple(f"blocks.L.{name}" for name in _PLACE_OF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One point in a model's computation."""

    name: str
    layer: int
    """index of its block."""
    place: Place

    @property
    def depth(self) -> float:
        """Position in the model, in blocks; `blocks.2.hook_resid_post` and `blocks.3.hook_resid_pre` are both at 3."""
        return self.layer + _ORDER[self.place]

    def neighbour(self, step: int, n_layers: int) -> str | None:
        """Name of the hook at the same place *step* blocks later in a model of *n_layers*; None if there is none."""
        if self.place == "resid_post" and self.layer + step == -1:
            return "blocks.0.hook_resid_pre"  # before the first block there is only the embedding
        if self.place == "resid_pre" and self.layer + step == n_layers:
            return f"blocks.{n_layers - 1}.hook_resid_post"
        if not 0 <= self.layer + step < n_layers:
            return None
        return f"blocks.{self.layer + step}.{self.name.split('.', 2)[2]}"

    @property
    def is_centred(self) -> bool:
        """Whether `center_writing_weights` subtracts the mean over d_model from the activation here."""
        return self.place not in ("z", "normalized_mlp_in", "mlp_module_in")

    @property
    def first_block(self) -> int:
        """Index of the first block that must run for a change here to reach the model's output."""
        return int(self.depth)

    @property
    def boundary(self) -> int | None:
        """Number of blocks before this point of the residual stream; None for hooks inside a block."""
        return int(self.depth) if self.place in ("resid_pre", "resid_post") else None


@cache
def parse(name: str) -> Hook | None:
    """The hook that TransformerLens calls *name*; None if the name is unknown."""
    match = _NAME.fullmatch(name)
    place = _PLACE_OF.get(match[2]) if match else None
    return None if match is None or place is None else Hook(name=name, layer=int(match[1]), place=place)


def parse_known(name: str) -> Hook:
    """As `parse`, for a *name* that has been checked."""
    hook = parse(name)
    assert hook is not None, name
    return hook


def from_module_name(name: str) -> str | None:
    """
    TransformerLens's name for transformers' module *name* (`model.layers.3`, `model.layers.3.output`, ...).

    Only modules that mean the same in every model family are translated, None stands for all others. For example, the
    output of a Gemma `mlp` is not TransformerLens's `hook_mlp_out`, since a norm follows it.
    """
    match = _MODULE.fullmatch(name)
    inner = _HOOK_OF_MODULE.get(match[2] or "") if match else None
    return None if match is None or inner is None else f"blocks.{match[1]}.{inner}"
