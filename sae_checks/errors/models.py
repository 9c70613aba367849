"""Language models, and SAEs that do not fit them."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import HookNotHereError, MeasuringError, ModelNotUnderstoodError, SaeError, UsageError
from sae_checks.errors.wording import listed, message, shown

_OTHER_MODEL = "--sae-model=NAME with the model that this SAE was trained on"


def no_model(path: str, problem: str) -> UsageError:
    return UsageError(
        message(
            f"--sae-model {shown(path)}: {problem}",
            expected="a folder in Hugging Face format: config.json, *.safetensors, tokenizer files",
            got=shown(path),
            attempt="--sae-model=FOLDER that model.save_pretrained and tokenizer.save_pretrained wrote",
        )
    )


def model_pickle_refused(model: str, file: str) -> UsageError:
    return UsageError(
        message(
            f"the weights of the model {shown(model)} are a pickle in TransformerLens's own format",
            expected="safetensors, or --sae-allow-pickle",
            got=f"{shown(file)}, without --sae-allow-pickle",
            attempt="--sae-allow-pickle (torch reads tensors from the file and runs no code of its)",
        )
    )


def model_not_loaded(path: str, problem: str) -> MeasuringError:
    return MeasuringError(
        message(
            f"the language model in {shown(path)} cannot be loaded",
            expected="a causal language model that transformers loads without remote code",
            got=shown(problem, n_most=300),
            attempt="AutoModelForCausalLM.from_pretrained(FOLDER), which shows the whole error",
        )
    )


def model_not_understood(path: str, problem: str) -> ModelNotUnderstoodError:
    return ModelNotUnderstoodError(
        message(
            f"SAEs cannot be spliced into the language model in {shown(path)}",
            expected="decoder blocks in one list, and logits that its head computes from its final hidden state",
            got=shown(problem, n_most=300),
        )
    )


def hook_beyond_model(sae_id: str, hook: str, n_layers: int) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: hook {shown(hook)} lies beyond the model's last layer",
            expected=f"a layer from 0 to {n_layers - 1}",
            got=shown(hook),
            attempt=_OTHER_MODEL,
        )
    )


def hook_not_here(sae_id: str, hook: str, architecture: str, problem: str) -> HookNotHereError:
    return HookNotHereError(
        message(
            f"{shown(sae_id)}: hook {shown(hook)} cannot be spliced in {shown(architecture)}",
            expected="a hook that fires once in every forward pass, at a known place of the block",
            got=shown(problem, n_most=300),
            attempt="--sae-id=GLOB that leaves this SAE out, and report the architecture",
        )
    )


def needs_transformer_lens(sae_id: str, processing: Sequence[str]) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: only TransformerLens computes what it was trained on ({listed(processing)})",
            expected="the name of a model, which TransformerLens loads",
            got="a model in memory",
            attempt='sae_checks.judge(saes, model="NAME")',
        )
    )


def hook_fired(hook: str, n_firings: int, n_forwards: int) -> MeasuringError:
    return MeasuringError(
        message(
            f"hook {shown(hook)} fired {n_firings} times in {n_forwards} forward passes: the splice is not in place",
            expected=f"{n_forwards} firings",
            got=f"{n_firings} firings",
        )
    )


def wrong_width(sae_id: str, hook: str, of_sae: int, of_model: int) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: at {shown(hook)} the SAE has {of_sae} dimensions and the model {of_model}",
            expected=f"{of_model} dimensions",
            got=f"{of_sae} dimensions",
            attempt=_OTHER_MODEL,
        )
    )


def no_such_head(sae_id: str, head: int, n_heads: int) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: the model has no attention head {head}",
            expected=f"a head from 0 to {n_heads - 1}",
            got=f"head {head}",
            attempt=_OTHER_MODEL,
        )
    )


def wrong_shape(sae_id: str, expected: str, got: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: the reconstruction and what it replaces differ in shape",
            expected=expected,
            got=got,
            attempt="sae.save_model(FOLDER), which writes d_in and d_out of cfg.json again",
        )
    )


def stack_of_several(stack_id: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(stack_id)}: its SAEs differ in language model, backend or rule for BOS",
            expected="one language model, one backend and one rule for BOS",
            got="several",
            attempt="--sae-id=GLOB that selects SAEs of one kind, or --sae-special-tokens=bos for all",
        )
    )


def trained_without_special_tokens(sae_id: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: it was trained without special tokens, and this run replaces them",
            expected="--sae-special-tokens=keep   (exclude_special_tokens in its cfg.json)",
            got="replace",
            attempt="--sae-special-tokens=keep",
        )
    )


def bos_unknown(sae_id: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: it is not known whether it was trained with a BOS token before every sequence",
            expected="prepend_bos in its cfg.json",
            got="no such key",
            attempt="--sae-special-tokens=bos, or --sae-special-tokens=no-bos",
        )
    )


def no_bos(model: str) -> MeasuringError:
    return MeasuringError(
        message(
            "the SAEs were trained with a BOS token, and the tokenizer has none",
            expected="a tokenizer with bos_token (or eos_token, as GPT-2 uses it)",
            got=f"neither, in {shown(model)}",
            attempt="--sae-special-tokens=no-bos, if the SAEs were trained without BOS",
        )
    )
