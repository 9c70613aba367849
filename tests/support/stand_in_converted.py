"""One tiny SAE per format that SAE Lens converts: the real repository's name and layout, other numbers."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save, save_file

D_IN, D_SAE = 8, 16
SIZES = {"d_in": D_IN, "d_sae": D_SAE}
"""Laid over what a converter has written in its source, by the registry's own means of correcting a configuration."""


@dataclass(frozen=True)
class Family:
    """One converter, a release that it is for, and what a stand-in for that release holds."""

    conversion: str
    release: str
    sae_id: str
    repo_id: str
    files: Callable[[], Mapping[str, bytes]]
    hook: str
    architecture: str
    context: int | None
    hook_out: str | None = None
    pickled: bool = False
    corrected: Mapping[str, object] = field(default_factory=dict)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def pickled(tensors: object) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def npz(**arrays: torch.Tensor) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: array.numpy() for name, array in arrays.items()})
    return file.getvalue()


def npz_of_objects(thing: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, w_enc=np.array([thing], dtype=object))
    return file.getvalue()


def gemma_arrays() -> dict[str, torch.Tensor]:
    return {
        "W_enc": numbers(D_IN, D_SAE),
        "W_dec": numbers(D_SAE, D_IN),
        "b_enc": numbers(D_SAE),
        "b_dec": numbers(D_IN),
        "threshold": numbers(D_SAE).abs(),
    }


def lower(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"w_" + name[2:] if name.startswith("W_") else name: tensor for name, tensor in tensors.items()}


def linear(encoder: str = "encoder", decoder: str = "decoder") -> dict[str, torch.Tensor]:
    """As two `torch.nn.Linear` have them."""
    return {
        f"{encoder}.weight": numbers(D_SAE, D_IN),
        f"{encoder}.bias": numbers(D_SAE),
        f"{decoder}.weight": numbers(D_IN, D_SAE),
        f"{decoder}.bias": numbers(D_IN),
    }


def gemma_2() -> Mapping[str, bytes]:
    return {"layer_3/width_16k/average_l0_59/params.npz": npz(**gemma_arrays())}


def gemma_2_transcoder() -> Mapping[str, bytes]:
    return {"layer_0/width_16k/average_l0_76/params.npz": npz(**gemma_arrays())}


def gemma_3() -> Mapping[str, bytes]:
    folder = "resid_post/layer_17_width_16k_l0_big"
    cfg = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-4b-pt",
        "hf_hook_point_in": "model.layers.17.output",
    }
    return {
        f"{folder}/config.json": json.dumps(cfg).encode(),
        f"{folder}/params.safetensors": save(lower(gemma_arrays())),
    }


def gemma_3_transcoder() -> Mapping[str, bytes]:
    """Without a config.json, and with the affine skip connection, whose matrix lies as (d_in, d_out)."""
    tensors = {**lower(gemma_arrays()), "affine_skip_connection": numbers(D_IN, D_IN)}
    return {"transcoder/layer_17_width_16k_l0_big_affine/params.safetensors": save(tensors)}


def llama_scope() -> Mapping[str, bytes]:
    folder = "Llama3_1-8B-Base-L0R-8x"
    cfg = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "dataset_average_activation_norm": {"in": 4.0, "out": 4.0},
        "jump_relu_threshold": 0.5,
        "hook_point_in": "blocks.0.hook_resid_post",
    }
    weights = save(linear())
    return {f"{folder}/hyperparams.json": json.dumps(cfg).encode(), f"{folder}/checkpoints/final.safetensors": weights}


def llama_scope_r1_distill() -> Mapping[str, bytes]:
    folder = "800M-Slimpajama-0-OpenR1-Math-220k/L0R"
    cfg = {"d_model": D_IN, "expansion_factor": D_SAE // D_IN, "hook_point_in": "blocks.0.hook_resid_post"}
    weights = save({**linear(), "log_jumprelu_threshold": -numbers(D_SAE).abs()})
    return {f"{folder}/config.json": json.dumps(cfg).encode(), f"{folder}/sae_weights.safetensors": weights}


def dictionary_learning(folder: str, dict_class: str, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
    trainer = {
        "layer": 12,
        "dict_class": dict_class,
        "k": 3,
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "lm_name": "google/gemma-2-2b",
    }
    cfg = {"trainer": trainer, "buffer": {"ctx_len": 128}}
    return {f"{folder}/config.json": json.dumps(cfg).encode(), f"{folder}/ae.pt": pickled(dict(tensors))}


def dictionary_learning_topk() -> Mapping[str, bytes]:
    tensors = linear()
    tensors["b_dec"] = tensors.pop("decoder.bias")
    folder = "gemma-2-2b_topk_width-2pow12_date-1109/resid_post_layer_12/trainer_0"
    return dictionary_learning(
        folder, "AutoEncoderTopK", {**tensors, "k": torch.tensor(3), "threshold": torch.tensor(0.1)}
    )


def mwhanna() -> Mapping[str, bytes]:
    run = {"d_model": {"value": D_IN}, "d_feature": {"value": D_SAE}, "batch_size": {"value": 64}}
    tensors = {**gemma_arrays(), "W_enc": numbers(D_SAE, D_IN)}
    del tensors["threshold"]
    return {
        "wanb-config.yaml": yaml.safe_dump(run).encode(),  # the real repositories have it misspelt, too
        "config.yaml": yaml.safe_dump({"model_name": "Qwen/Qwen3-4B"}).encode(),
        "layer_0.safetensors": save(tensors),
    }


def goodfire() -> Mapping[str, bytes]:
    return {"Llama-3.1-8B-Instruct-SAE-l19.pth": pickled(linear("encoder_linear", "decoder_linear"))}


def deepseek_r1() -> Mapping[str, bytes]:
    return {"DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt": pickled(linear())}


def qwen_scope() -> Mapping[str, bytes]:
    tensors = {
        "W_enc": numbers(D_SAE, D_IN),
        "W_dec": numbers(D_IN, D_SAE),
        "b_enc": numbers(D_SAE),
        "b_dec": numbers(D_IN),
    }
    return {"layer0.sae.pt": pickled(tensors)}


def connor_rob_hook_z() -> Mapping[str, bytes]:
    name = "gpt2-small_L0_Hcat_z_lr1.20e-03_l11.80e+00_ds24576_bs4096_dc1.00e-06_rsanthropic_rie25000_nr4_v9"
    cfg = {"act_size": D_IN, "dict_size": D_SAE, "act_name": "blocks.0.attn.hook_z"}
    tensors = {name: tensor for name, tensor in gemma_arrays().items() if name != "threshold"}
    return {f"{name}_cfg.json": json.dumps(cfg).encode(), f"{name}.pt": pickled(tensors)}


def temporal() -> Mapping[str, bytes]:
    folder = "gemma-2-2B/layer_12/temporal"
    sae = {
        "exp_factor": D_SAE / D_IN,
        "n_heads": 2,
        "n_attn_layers": 1,
        "bottleneck_factor": 2,
        "sae_diff_type": "topk",
        "kval_topk": 3,
        "tied_weights": True,
        "scaling_factor": 0.5,
    }
    cfg = {"llm": {"dimin": D_IN}, "sae": sae, "data": {"dtype": "float32"}}
    n_inner = D_SAE // 2
    attention = {
        "k_ctx.weight": numbers(n_inner, D_SAE),
        "k_ctx.bias": numbers(n_inner),
        "q_target.weight": numbers(n_inner, D_SAE, seed=1),
        "q_target.bias": numbers(n_inner, seed=1),
        "v_ctx.weight": numbers(D_SAE, D_SAE),
        "v_ctx.bias": numbers(D_SAE),
        "c_proj.weight": numbers(D_SAE, D_SAE, seed=1),
        "c_proj.bias": numbers(D_SAE, seed=1),
    }
    tensors = {"D": numbers(D_SAE, D_IN), "b": numbers(D_IN)}
    tensors |= {f"attn_layers.0.{name}": tensor for name, tensor in attention.items()}
    return {f"{folder}/conf.yaml": yaml.safe_dump(cfg).encode(), f"{folder}/latest_ckpt.safetensors": save(tensors)}


FAMILIES = (
    Family(
        "gemma_2",
        "gemma-scope-2b-pt-res",
        "layer_3/width_16k/average_l0_59",
        "google/gemma-scope-2b-pt-res",
        gemma_2,
        "blocks.3.hook_resid_post",
        "jumprelu",
        1024,
        pickled=True,
        corrected=SIZES,
    ),
    Family(
        "gemma_2_transcoder",
        "gemma-scope-2b-pt-transcoders",
        "layer_0/width_16k/average_l0_76",
        "google/gemma-scope-2b-pt-transcoders",
        gemma_2_transcoder,
        "blocks.0.ln2.hook_normalized",
        "jumprelu_transcoder",
        1024,
        hook_out="blocks.0.hook_mlp_out",
        pickled=True,
        corrected={**SIZES, "d_out": D_IN},
    ),
    Family(
        "gemma_3",
        "gemma-scope-2-4b-pt-res",
        "layer_17_width_16k_l0_big",
        "google/gemma-scope-2-4b-pt",
        gemma_3,
        "blocks.17.hook_resid_post",
        "jumprelu",
        1024,
    ),
    Family(
        "gemma_3",
        "gemma-scope-2-4b-pt-transcoders",
        "transcoder/layer_17_width_16k_l0_big_affine",
        "google/gemma-scope-2-4b-pt",
        gemma_3_transcoder,
        "blocks.17.mlp.hook_in",
        "jumprelu_skip_transcoder",
        1024,
        hook_out="blocks.17.hook_mlp_out",
    ),
    Family(
        "llama_scope",
        "llama_scope_lxr_8x",
        "l0r_8x",
        "fnlp/Llama3_1-8B-Base-LXR-8x",
        llama_scope,
        "blocks.0.hook_resid_post",
        "jumprelu",
        1024,
    ),
    Family(
        "llama_scope_r1_distill",
        "llama_scope_r1_distill",
        "l0r_800m_slimpajama",
        "fnlp/Llama-Scope-R1-Distill",
        llama_scope_r1_distill,
        "blocks.0.hook_resid_post",
        "jumprelu",
        1024,
    ),
    Family(
        "dictionary_learning_1",
        "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109",
        "blocks.12.hook_resid_post__trainer_0",
        "canrager/saebench_gemma-2-2b_width-2pow12_date-1109",
        dictionary_learning_topk,
        "blocks.12.hook_resid_post",
        "topk",
        128,
        pickled=True,
    ),
    Family(
        "mwhanna_transcoder",
        "mwhanna-qwen3-4b-transcoders",
        "layer_0",
        "mwhanna/qwen3-4b-transcoders",
        mwhanna,
        "blocks.0.mlp.hook_in",
        "transcoder",
        64,
        hook_out="blocks.0.hook_mlp_out",
    ),
    Family(
        "goodfire",
        "goodfire-llama-3.1-8b-instruct",
        "layer_19",
        "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
        goodfire,
        "blocks.19.hook_resid_post",
        "standard",
        None,
        pickled=True,
        corrected=SIZES,
    ),
    Family(
        "deepseek_r1",
        "deepseek-r1-distill-llama-8b-qresearch",
        "blocks.19.hook_resid_post",
        "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19",
        deepseek_r1,
        "blocks.19.hook_resid_post",
        "standard",
        1024,
        pickled=True,
        corrected=SIZES,
    ),
    Family(
        "qwen_scope",
        "qwen-scope-3-1.7b-base-w32k-l50",
        "layer0",
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50",
        qwen_scope,
        "blocks.0.hook_resid_post",
        "topk",
        1024,
        pickled=True,
        corrected={**SIZES, "activation_fn_kwargs": {"k": 3}},
    ),
    Family(
        "connor_rob_hook_z",
        "gpt2-small-hook-z-kk",
        "blocks.0.hook_z",
        "ckkissane/attn-saes-gpt2-small-all-layers",
        connor_rob_hook_z,
        "blocks.0.attn.hook_z",
        "standard",
        128,
        pickled=True,
    ),
    Family(
        "temporal",
        "temporal-sae-gemma-2-2b",
        "blocks.12.hook_resid_post",
        "canrager/temporalSAEs",
        temporal,
        "blocks.12.hook_resid_post",
        "temporal",
        None,
    ),
)


def stock(hub: object) -> None:
    """Put every family's repository on *hub*."""
    repos: dict[str, dict[str, bytes]] = {}
    for family in FAMILIES:
        repos.setdefault(family.repo_id, {}).update(family.files())
    for repo_id, files in repos.items():
        hub.model(repo_id, {"README.md": b"# SAEs\n", **files})


def write_sparsify(
    folder: Path, *, run: Mapping[str, object] | None = None, **entries: object
) -> dict[str, torch.Tensor]:
    """As sparsify's `SparseCoder.save_to_disk`: W_dec lies as (num_latents, d_in)."""
    folder.mkdir(parents=True)
    cfg = {
        "activation": "topk",
        "expansion_factor": 2,
        "normalize_decoder": True,
        "num_latents": 0,
        "k": 3,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D_IN,
    }
    (folder / "cfg.json").write_text(json.dumps({**cfg, **entries}))
    tensors = {
        "encoder.weight": numbers(D_SAE, D_IN),
        "encoder.bias": numbers(D_SAE),
        "W_dec": numbers(D_SAE, D_IN, seed=1),
        "b_dec": numbers(D_IN),
    }
    save_file(tensors, folder / "sae.safetensors")
    if run is not None:
        (folder.parent / "config.json").write_text(json.dumps(run))
    return tensors
