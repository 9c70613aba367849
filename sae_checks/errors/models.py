"""Language models, and SAEs that do not fit them."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import HookNotHereError, MeasuringError, ModelNotUnderstoodError, SaeError, UsageError
from sae_checks.errors.wording import listed, said, shown


def no_model(path: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"--sae-model {shown(path)}: {problem}",
            expected="a folder in Hugging Face format: config.json, *.safetensors, tokenizer files",
            got=shown(path),
            attempt="the folder that model.save_pretrained and tokenizer.save_pretrained wrote",
        )
    )


def model_pickle_refused(model: str, file: str) -> UsageError:
    return UsageError(
        said(
            f"the weights of the model {shown(model)} are a pickle in TransformerLens's own format",
            expected="safetensors, or --sae-allow-pickle",
            got=f"{shown(file)} and no --sae-allow-pickle",
            attempt="--sae-allow-pickle: torch then reads tensors from it, and still runs no code of its",
        )
    )


def only_in_transformer_lens(model: str) -> UsageError:
    return UsageError(
        said(
            f"--sae-backend transformers cannot run {shown(model)}, which is in TransformerLens's own format",
            expected="--sae-backend transformer_lens, or auto",
            got="transformers",
            attempt="leave --sae-backend out",
        )
    )


def model_not_loaded(path: str, problem: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"the language model in {shown(path)} cannot be loaded",
            expected="a causal language model that transformers can load without remote code",
            got=shown(problem, n_most=300),
            attempt="AutoModelForCausalLM.from_pretrained on that folder shows the whole error",
        )
    )


def model_not_understood(path: str, problem: str) -> ModelNotUnderstoodError:
    return ModelNotUnderstoodError(
        said(
            f"the language model in {shown(path)} is not one whose layers can be spliced",
            expected="decoder blocks in one list, and logits that follow from the final hidden state by its head",
            got=shown(problem, n_most=300),
            attempt="report the architecture; it can be added in sae_checks/model",
        )
    )


def hook_beyond_model(sae_id: str, hook: str, n_layers: int) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: hook {shown(hook)} lies beyond the model's last layer",
            expected=f"a layer from 0 to {n_layers - 1}",
            got=shown(hook),
            attempt="the model that this SAE was trained on (--sae-model)",
        )
    )


def hook_not_here(sae_id: str, hook: str, architecture: str, problem: str) -> HookNotHereError:
    return HookNotHereError(
        said(
            f"{shown(sae_id)}: hook {shown(hook)} cannot be spliced in {shown(architecture)}",
            expected="a hook that fires once in every forward pass, at a known place of the block",
            got=shown(problem, n_most=300),
            attempt="--sae-backend transformer_lens, or transformers if that is what refused it",
        )
    )


def needs_transformer_lens(sae_id: str, processing: Sequence[str]) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: only TransformerLens computes what it was trained on ({listed(processing)})",
            expected="a backend that processes the model's weights",
            got="--sae-backend transformers",
            attempt="--sae-backend auto",
        )
    )


def hook_fired(hook: str, n_firings: int, n_forwards: int) -> MeasuringError:
    return MeasuringError(
        said(
            f"hook {shown(hook)} fired {n_firings} times in {n_forwards} forward passes: the splice is not in place",
            expected=f"{n_forwards} firings",
            got=str(n_firings),
            attempt="report this with the model's architecture and the versions in the record",
        )
    )


def wrong_width(sae_id: str, hook: str, of_sae: int, of_model: int) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: the SAE has {of_sae} dimensions at {shown(hook)}, the model carries {of_model} there",
            expected=f"{of_model} dimensions",
            got=str(of_sae),
            attempt="the model that this SAE was trained on (--sae-model)",
        )
    )


def no_such_head(sae_id: str, head: int, n_heads: int) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: the model has no attention head {head}",
            expected=f"a head from 0 to {n_heads - 1}",
            got=str(head),
            attempt="the model that this SAE was trained on (--sae-model)",
        )
    )


def wrong_shape(sae_id: str, expected: str, got: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: the reconstruction does not have the shape of what it replaces",
            expected=expected,
            got=got,
            attempt="an SAE that reconstructs its own input",
        )
    )


def stack_of_several(stack_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(stack_id)}: its SAEs do not share one model and one convention",
            expected="one language model, one backend and one rule for BOS",
            got="several",
            attempt="choose those that do with --sae-id, or set --sae-bos and --sae-backend",
        )
    )


def trained_without_special_tokens(sae_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: it was trained without special tokens, and they would be replaced",
            expected="--sae-special-tokens keep (exclude_special_tokens in its cfg.json)",
            got="replace",
            attempt="--sae-special-tokens keep",
        )
    )


def bos_unknown(sae_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: nothing says whether it was trained with a BOS token before every sequence",
            expected="prepend_bos in its cfg.json",
            got="no such key",
            attempt="--sae-bos on or --sae-bos off",
        )
    )


def no_bos(model: str) -> MeasuringError:
    return MeasuringError(
        said(
            "the SAEs were trained with a BOS token, and the tokenizer has none",
            expected="a tokenizer with bos_token (or eos_token, as GPT-2 uses it)",
            got=f"neither, in {shown(model)}",
            attempt="--sae-bos off, if the SAEs were in truth trained without",
        )
    )
