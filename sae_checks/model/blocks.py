"""
TransformerLens's hooks inside a block of a transformers model.

The modules of a block are found by their names, and then checked by what they compute: on a few tokens, its output must
be its input plus the outputs of attention and MLP, and the MLP must read the expected residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sae_checks.model.interface import Edit
from sae_checks.release.hooks import Hook

_ATTENTIONS = ("self_attn", "attn", "attention")
_PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj")
_MLP_NORMS = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
_TOLERANCE = 1e-3


class UnknownBlockError(Exception):
    """The block has unknown modules, or computes something else than their names say; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockModules:
    """The modules of one block at which its inner hooks are."""

    block: nn.Module
    out_projection: nn.Module
    """reads the concatenated outputs of the heads."""
    attention_output: nn.Module
    """module whose output is added to the residual stream: the attention, or a norm after it."""
    mlp_norm: nn.Module
    mlp: nn.Module
    mlp_output: nn.Module
    """as *attention_output*: the MLP, or a norm after it."""
    is_parallel: bool
    """attention and MLP read the same residual stream, so there is no resid_mid."""


def width(modules: BlockModules, hook: Hook, d_model: int) -> int:
    """Last dimension of the activation at *hook*."""
    if hook.place != "z":
        return d_model
    weight = modules.out_projection.weight
    assert isinstance(weight, torch.Tensor)
    # the weight of nn.Linear is (out, in), that of GPT-2's Conv1D (in, out)
    return int(weight.shape[1] if isinstance(modules.out_projection, nn.Linear) else weight.shape[0])


def on_input(module: nn.Module, edit: Edit) -> RemovableHandle:
    """Edit the first input of *module*."""

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(before, with_kwargs=True)


def on_output(module: nn.Module, edit: Edit) -> RemovableHandle:
    """Edit the first output of *module*."""

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(after)


def attach(modules: BlockModules, hook: Hook, edit: Edit) -> Iterator[RemovableHandle]:
    """Put *edit* at *hook*, which is inside the block."""
    norm = modules.mlp_norm
    if hook.place == "z":
        yield on_input(modules.out_projection, edit)
    elif hook.place == "attn_out":
        yield on_output(modules.attention_output, edit)
    elif hook.place == "resid_mid":
        before = _Recorder()
        yield on_input(modules.block, before)
        # the residual stream gets the edited value if attention adds the difference to it
        yield on_output(modules.attention_output, lambda added: edit(before.value + added) - before.value)
    elif hook.place == "mlp_in":
        yield on_input(norm, edit)
    elif hook.place == "normalized_mlp_in":
        norm_input = _Recorder()
        yield on_input(norm, norm_input)
        yield on_output(norm, lambda _: _apply_weights(norm, edit(_normalise(norm, norm_input.value))))
    elif hook.place == "mlp_module_in":
        yield on_input(modules.mlp, edit)
    else:
        assert hook.place == "mlp_out", hook
        yield on_output(modules.mlp_output, edit)


@contextmanager
def attached(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Make all *handles*, and remove them at the end of the block; if making one fails, remove the others."""
    made: list[RemovableHandle] = []
    try:
        for handle in handles:
            made.append(handle)  # noqa: PERF402 -- not a list(): if a later one fails, the earlier ones must be known
        yield
    finally:
        for handle in made:
            handle.remove()


def find_modules(blocks: Sequence[nn.Module], run: Callable[[], object]) -> tuple[BlockModules, ...]:
    """
    Find the modules of each of *blocks*, and check them on one forward pass of the model.

    Args:
        blocks: all blocks of the model.
        run: runs the forward pass.

    Raises:
        UnknownBlockError: a name is unknown, or a check fails.
    """
    found = [_find_by_name(block) for block in blocks]
    names = ("input", "attention", "mlp_input", "norm", "mlp", "output")
    recorders = [{name: _Recorder() for name in names} for _ in blocks]

    def handles() -> Iterator[RemovableHandle]:
        for modules, recorder in zip(found, recorders, strict=True):
            yield on_input(modules.block, recorder["input"])
            yield on_output(modules.attention_output, recorder["attention"])
            yield on_input(modules.mlp_norm, recorder["mlp_input"])
            yield on_output(modules.mlp_norm, recorder["norm"])
            yield on_output(modules.mlp_output, recorder["mlp"])
            yield on_output(modules.block, recorder["output"])

    with attached(handles()):
        run()
    for layer, (modules, recorder) in enumerate(zip(found, recorders, strict=True)):
        _check(layer, modules, {name: each.value for name, each in recorder.items()})
    return tuple(found)


class _Recorder:
    """An edit that keeps the activation and does not change it."""

    value: torch.Tensor

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        self.value = activation
        return activation


def _find_by_name(block: nn.Module) -> BlockModules:
    def child(of: nn.Module, names: Sequence[str]) -> nn.Module:
        for name in names:
            found = getattr(of, name, None)
            if isinstance(found, nn.Module):
                return found
        raise UnknownBlockError(f"no {' or '.join(names)} in {type(of).__name__}")

    attention, mlp = child(block, _ATTENTIONS), child(block, ("mlp",))
    has_output_norms = hasattr(block, "pre_feedforward_layernorm")  # Gemma 2 and 3: norms before and after each
    return BlockModules(
        block=block,
        out_projection=child(attention, _PROJECTIONS),
        attention_output=child(block, ("post_attention_layernorm",)) if has_output_norms else attention,
        mlp_norm=child(block, _MLP_NORMS),
        mlp=mlp,
        mlp_output=child(block, ("post_feedforward_layernorm",)) if has_output_norms else mlp,
        is_parallel=bool(getattr(block, "use_parallel_residual", False)),
    )


def _check(layer: int, modules: BlockModules, seen: dict[str, torch.Tensor]) -> None:
    """Check that block *layer* computes what its *modules* suggest, on the recorded activations *seen*."""

    def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
        scale = float(expected.float().abs().max())
        return float((got.float() - expected.float()).abs().max()) <= _TOLERANCE * max(scale, 1.0)

    if not close(seen["output"], seen["input"] + seen["attention"] + seen["mlp"]):
        raise UnknownBlockError(f"block {layer} is not its input plus attention plus MLP")
    expected = seen["input"] if modules.is_parallel else seen["input"] + seen["attention"]
    if not close(seen["mlp_input"], expected):
        raise UnknownBlockError(f"the MLP of block {layer} does not read the residual stream behind its attention")
    if not close(_apply_weights(modules.mlp_norm, _normalise(modules.mlp_norm, seen["mlp_input"])), seen["norm"]):
        raise UnknownBlockError(f"the norm before the MLP of block {layer} is neither LayerNorm nor RMSNorm")


def _normalise(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """*x* as *norm* normalises it, before the norm's weights: divided by its scale, for LayerNorm centred first."""
    wide = x.float()
    if isinstance(norm, nn.LayerNorm):
        wide = wide - wide.mean(-1, keepdim=True)
        eps = norm.eps
    else:
        eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _apply_weights(norm: nn.Module, normalised: torch.Tensor) -> torch.Tensor:
    """Apply the weights of *norm* to an activation that is already normalised."""
    if isinstance(norm, nn.LayerNorm):
        scaled = normalised * norm.weight
        return scaled if norm.bias is None else scaled + norm.bias
    # WHY not norm.weight: some families multiply by 1 + weight. The norm of a large constant vector is the factor.
    large = torch.full_like(normalised[..., :1, :], 1e3)
    factor: torch.Tensor = norm.forward(large).to(normalised.dtype)  # forward, not a call: this runs in a hook of norm
    return normalised * factor
