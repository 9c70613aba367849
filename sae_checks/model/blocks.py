"""
Where TransformerLens's hooks lie within a block of a transformers model.

A block is read by the names of its modules and then believed only for what it computes: on a few tokens its output must
be its input plus what attention and MLP add, and the MLP must read the residual stream that is expected.
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


class NotUnderstoodError(Exception):
    """The block does not compute what its names promise; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The modules of one block at which inner hooks lie."""

    block: nn.Module
    projection: nn.Module
    """reads the heads' outputs, side by side."""
    attention_end: nn.Module
    """its output is added to the residual stream: the attention, or the norm behind it."""
    mlp_norm: nn.Module
    mlp: nn.Module
    mlp_end: nn.Module
    is_parallel: bool
    """attention and MLP read the same residual stream, and there is nothing between them."""


class Tap:
    """An edit at one hook that counts how often it is asked."""

    def __init__(self, edit: Edit) -> None:
        self._edit = edit
        self.n = 0

    def __call__(self, carried: torch.Tensor) -> torch.Tensor:
        self.n += 1
        return self._edit(carried)


def width(parts: Parts, hook: Hook, d_model: int) -> int:
    """The last dimension of what *hook* carries."""
    if hook.place != "z":
        return d_model
    weight = parts.projection.weight
    assert isinstance(weight, torch.Tensor)
    # nn.Linear holds (out, in), GPT-2's Conv1D (in, out)
    return int(weight.shape[1] if isinstance(parts.projection, nn.Linear) else weight.shape[0])


def on_input(module: nn.Module, edit: Edit) -> RemovableHandle:
    """Change what *module* is called with."""

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(before, with_kwargs=True)


def on_output(module: nn.Module, edit: Edit) -> RemovableHandle:
    """Change what *module* returns, or the first of it."""

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(after)


def attach(parts: Parts, hook: Hook, tap: Edit) -> Iterator[RemovableHandle]:
    """Put *tap* at *hook*, a place within the block."""
    if hook.place == "z":
        yield on_input(parts.projection, tap)
    elif hook.place == "attn_out":
        yield on_output(parts.attention_end, tap)
    elif hook.place == "resid_mid":
        before = _Kept()
        yield on_input(parts.block, before)
        # what attention adds is chosen so that the sum becomes what is asked for
        yield on_output(parts.attention_end, lambda added: tap(before.value + added) - before.value)
    elif hook.place == "mlp_in":
        yield on_input(parts.mlp_norm, tap)
    elif hook.place == "normalized_mlp_in":
        read = _Kept()
        yield on_input(parts.mlp_norm, read)
        yield on_output(parts.mlp_norm, lambda _: _affine(parts.mlp_norm, tap(_normalised(parts.mlp_norm, read.value))))
    elif hook.place == "mlp_module_in":
        yield on_input(parts.mlp, tap)
    else:
        assert hook.place == "mlp_out", hook
        yield on_output(parts.mlp_end, tap)


@contextmanager
def attached(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """*handles* as they are made, and all of them removed at the end, also of those that could not be made."""
    made: list[RemovableHandle] = []
    try:
        for handle in handles:
            made.append(handle)  # noqa: PERF402 -- one by one: those made before one fails must go, too
        yield
    finally:
        for handle in made:
            handle.remove()


def understand(blocks: Sequence[nn.Module], run: Callable[[], object]) -> tuple[Parts, ...]:
    """
    The parts of each of *blocks*, checked on what *run*, one forward pass of the model, computes.

    Raises:
        NotUnderstoodError: names that are not known, or a sum that does not come out.
    """
    named = [_named(block) for block in blocks]
    kept = [{name: _Kept() for name in ("input", "attention", "mlp_read", "norm", "mlp", "output")} for _ in blocks]

    def handles() -> Iterator[RemovableHandle]:
        for parts, into in zip(named, kept, strict=True):
            yield on_input(parts.block, into["input"])
            yield on_output(parts.attention_end, into["attention"])
            yield on_input(parts.mlp_norm, into["mlp_read"])
            yield on_output(parts.mlp_norm, into["norm"])
            yield on_output(parts.mlp_end, into["mlp"])
            yield on_output(parts.block, into["output"])

    with attached(handles()):
        run()
    return tuple(
        _checked(layer, parts, {name: k.value for name, k in of_block.items()})
        for layer, (parts, of_block) in enumerate(zip(named, kept, strict=True))
    )


class _Kept:
    """Remembers what went by and changes nothing."""

    value: torch.Tensor

    def __call__(self, carried: torch.Tensor) -> torch.Tensor:
        self.value = carried
        return carried


def _named(block: nn.Module) -> Parts:
    def child(of: nn.Module, names: Sequence[str]) -> nn.Module:
        for name in names:
            found = getattr(of, name, None)
            if isinstance(found, nn.Module):
                return found
        raise NotUnderstoodError(f"no {' or '.join(names)} in {type(of).__name__}")

    attention, mlp = child(block, _ATTENTIONS), child(block, ("mlp",))
    has_norms_behind = hasattr(block, "pre_feedforward_layernorm")  # Gemma 2 and 3: a norm before and after each
    return Parts(
        block=block,
        projection=child(attention, _PROJECTIONS),
        attention_end=child(block, ("post_attention_layernorm",)) if has_norms_behind else attention,
        mlp_norm=child(block, _MLP_NORMS),
        mlp=mlp,
        mlp_end=child(block, ("post_feedforward_layernorm",)) if has_norms_behind else mlp,
        is_parallel=bool(getattr(block, "use_parallel_residual", False)),
    )


def _checked(layer: int, parts: Parts, seen: dict[str, torch.Tensor]) -> Parts:
    def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
        scale = float(expected.float().abs().max())
        return float((got.float() - expected.float()).abs().max()) <= _TOLERANCE * max(scale, 1.0)

    if not close(seen["output"], seen["input"] + seen["attention"] + seen["mlp"]):
        raise NotUnderstoodError(f"block {layer} is not its input plus attention plus MLP")
    expected = seen["input"] if parts.is_parallel else seen["input"] + seen["attention"]
    if not close(seen["mlp_read"], expected):
        raise NotUnderstoodError(f"the MLP of block {layer} does not read the residual stream behind its attention")
    if not close(_affine(parts.mlp_norm, _normalised(parts.mlp_norm, seen["mlp_read"])), seen["norm"]):
        raise NotUnderstoodError(f"the norm before the MLP of block {layer} is neither LayerNorm nor RMSNorm")
    return parts


def _normalised(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """*x* divided by its scale as *norm* does it, before the norm's weights; for LayerNorm less its mean."""
    wide = x.float()
    if isinstance(norm, nn.LayerNorm):
        wide = wide - wide.mean(-1, keepdim=True)
        eps = norm.eps
    else:
        eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _affine(norm: nn.Module, normalised: torch.Tensor) -> torch.Tensor:
    """The weights of *norm* on what is already normalised."""
    if isinstance(norm, nn.LayerNorm):
        scaled = normalised * norm.weight
        return scaled if norm.bias is None else scaled + norm.bias
    # Some families multiply by the weight and some by one plus it: a vector of large equal numbers shows which.
    large = torch.full_like(normalised[..., :1, :], 1e3)
    weight: torch.Tensor = norm.forward(large).to(normalised.dtype)  # forward: this may run within a hook of it
    return normalised * weight
