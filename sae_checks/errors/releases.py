"""Releases and their SAEs: names, configurations, weights."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import SaeError, UsageError
from sae_checks.errors.wording import listed, message, shown, typed


def unknown_release(name: str, nearest: Sequence[str], known: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"no SAE release {shown(name)!r}",
            expected="a folder of SAEs (cfg.json beside sae_weights.safetensors), a Hub repository org/name, or one "
            f"of: {listed(known)}   (sae-checks list)",
            got=shown(name),
            attempt=typed("--sae-release", nearest[0]) if nearest else "sae-checks list",
        )
    )


def empty_release(folder: str) -> UsageError:
    return UsageError(
        message(
            f"no SAE in {shown(folder)}",
            expected="a cfg.json for each SAE, in the folder or below it",
            got="no cfg.json",
            attempt="--sae-release=FOLDER with the folder that sae.save_model(FOLDER) wrote",
        )
    )


def no_sae_matches(patterns: Sequence[str], sae_ids: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"--sae-id {listed(patterns)} matches no SAE of the release",
            expected=f"a pattern (fnmatch) that matches one of: {listed(sae_ids)}",
            got=listed(patterns),
            attempt=typed("--sae-id", sae_ids[0] if sae_ids else "*"),
        )
    )


def nothing_to_explain(pattern: str, sae_ids: Sequence[str]) -> UsageError:
    return UsageError(
        message(
            f"--sae-explain={shown(pattern)} matches no SAE of the release",
            expected=f"a pattern (fnmatch) that matches one of: {listed(sae_ids)}",
            got=shown(pattern),
            attempt=typed("--sae-explain", sae_ids[0] if sae_ids else "*"),
        )
    )


def text_of_publisher(release: str, dataset: str) -> UsageError:
    return UsageError(
        message(
            f"release {shown(release)} needs --sae-corpus: only its publisher names the SAEs' text",
            expected="held-out text that you choose; a text that SAEs name is a default only if SAE Lens names it, too",
            got=shown(dataset),
            attempt="--sae-corpus=Skylion007/openwebtext@refs/convert/parquet:plain_text, or a file",
        )
    )


def pickles_needed(release: str, suffix: str) -> UsageError:
    return UsageError(
        message(
            f"the weights of release {shown(release)} are {shown(suffix)} files, which are not loaded by default",
            expected="safetensors, or --sae-allow-pickle",
            got=f"{shown(suffix)} files, without --sae-allow-pickle",
            attempt="--sae-allow-pickle (torch and NumPy read tensors from the files and run no code of theirs)",
        )
    )


def bad_cfg(sae_id: str, problem: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: cfg.json cannot be used: {problem}",
            expected="a configuration as SAE Lens saves it (architecture, d_in, d_sae, metadata.hook_name, ...)",
            got=problem,
            attempt="sae.save_model(FOLDER), which writes cfg.json again",
        )
    )


def not_supported(sae_id: str, key: str, value: str, supported: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: {key} = {shown(value)} is not supported, and ignoring it would change what is measured",
            expected=f"{key}: {supported}",
            got=shown(value),
            attempt="--sae-id=PATTERN, with a pattern that leaves this SAE out",
        )
    )


def norm_not_supported(sae_id: str, norm: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: its norm cannot be run: normalize_activations = {shown(norm)}",
            expected="none, layer_norm, constant_norm_rescale; expected_average_only_in with a known scaling factor; "
            "constant_scalar_rescale for the architecture temporal",
            got=shown(norm),
            attempt="sae.fold_activation_norm_scaling_factor(FACTOR) or sae.fold_activation_whitening(MEAN, MATRIX), "
            "then sae.save_model(FOLDER)",
        )
    )


def other_architecture(sae_id: str, architecture: str, trained: str, saved_as: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: it was trained as {shown(trained)} and would run as {shown(architecture)}",
            expected=f"architecture {shown(saved_as)}   (cfg.json, metadata.training_architecture: {shown(trained)})",
            got=shown(architecture),
            attempt="sae.save_inference_model(FOLDER) of the training SAE, which writes the architecture for use",
        )
    )


def unknown_hook(sae_id: str, hook: str, known: Sequence[str]) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: hook {shown(hook)!r} is not known",
            expected=f"a hook by TransformerLens's name: {listed(known, n_most=12)}",
            got=shown(hook),
            attempt="sae.save_model(FOLDER) with the right metadata.hook_name",
        )
    )


def cross_layer(sae_id: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: one layer of a cross-layer transcoder reconstructs nothing by itself",
            expected="an SAE or transcoder that writes to one place",
            got="a transcoder that writes to every later layer",
            attempt="sae-checks list, which shows per-layer releases of the same model",
        )
    )


def only_pickle(sae_id: str, file: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: its weights are a pickle, and loading a pickle can run any code",
            expected="safetensors, written where you trust the file; --sae-allow-pickle does not help here",
            got=shown(file),
            attempt="safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'sae_weights.safetensors')",
        )
    )


def pickle_refused(sae_id: str, file: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: its weights are a pickle or .npz, which is not loaded by default",
            expected="safetensors, or --sae-allow-pickle",
            got=shown(file),
            attempt="--sae-allow-pickle (torch and NumPy read tensors from the file and run no code of its)",
        )
    )


def not_converted(sae_id: str, converter: str, problem: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: SAE Lens's converter {shown(converter)} cannot read it: {shown(problem, n_most=300)}",
            expected="the files of that format, all in the pinned repository",
            got=shown(problem, n_most=300),
            attempt="--sae-release=NAME@REVISION, with the revision that the converter was written for",
        )
    )


def bad_weights(sae_id: str, problem: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: its weights cannot be used: {shown(problem, n_most=300)}",
            expected="a whole sae_weights.safetensors that agrees with cfg.json",
            got=shown(problem, n_most=300),
            attempt="sae.save_model(FOLDER), which writes both again",
        )
    )


def not_real(sae_id: str, tensor: str, dtype: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: {shown(tensor)} holds no floating-point numbers, and casting them would change it",
            expected="float32, float16, bfloat16 or another floating-point type",
            got=shown(dtype),
            attempt="safetensors.torch.save_file(...) with the weights as they are after any quantisation is undone",
        )
    )


def tensors_renamed(sae_id: str, missing: Sequence[str], found: Sequence[str]) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: its tensors have other names than SAE Lens's: there is no {listed(missing)}",
            expected=listed(missing),
            got=listed(found),
            attempt="safetensors.torch.save_file(...) with SAE Lens's names: W_enc (d_in, d_sae), W_dec (d_sae, d_out)",
        )
    )


def tensors_missing(sae_id: str, missing: Sequence[str], architecture: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: a {shown(architecture)} SAE needs {listed(missing)}, which its weights lack",
            expected=f"{listed(missing)} beside the others, or in cfg.json an architecture that has none",
            got="all other tensors",
            attempt="sae.save_model(FOLDER) of the SAE as it was trained; zeros instead would make another SAE of it",
        )
    )


def tensors_unknown(sae_id: str, unknown: Sequence[str], architecture: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: a {shown(architecture)} SAE has no {listed(unknown)}",
            expected="the architecture in cfg.json that uses them, or weights without them",
            got=listed(unknown),
            attempt="safetensors.torch.save_file(...) without them, if they belong to training alone",
        )
    )


def zero_decoder_rows(sae_id: str, rows: Sequence[str]) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: {len(rows)} decoder rows are zero, and it divides by their length: all it gives is NaN",
            expected="decoder rows above 0, or rescale_acts_by_decoder_norm: false   (cfg.json)",
            got=f"zero in row {listed(rows)} of W_dec",
            attempt="sae.save_model(FOLDER) after sae.fold_W_dec_norm(), and only then with rows of zero",
        )
    )


def changed_meanwhile(sae_id: str) -> SaeError:
    return SaeError(
        message(
            f"{shown(sae_id)}: its files have changed while it was measured",
            expected="the files as they were when the run began",
            got="another size or time of change",
        )
    )
