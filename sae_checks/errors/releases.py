"""Releases and their SAEs: names, configurations, weights."""

from __future__ import annotations

from collections.abc import Sequence

from sae_checks.errors.exceptions import SaeError, UsageError
from sae_checks.errors.wording import listed, said, shown


def unknown_release(name: str, nearest: Sequence[str], known: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"no SAE release {shown(name)!r}",
            expected="a folder of SAEs (cfg.json beside sae_weights.safetensors), a name that sae-checks list prints, "
            f"a Hub repository org/name, or one of: {listed(known)}",
            got=shown(name),
            attempt=f"--sae-release {shown(nearest[0])}" if nearest else "the path of a folder, or --sae-release demo",
        )
    )


def empty_release(folder: str) -> UsageError:
    return UsageError(
        said(
            f"no SAE in {shown(folder)}",
            expected="cfg.json files, one per SAE, in the folder or below it",
            got="none",
            attempt="the folder that SAE Lens wrote (sae.save_model, or the training runner's output)",
        )
    )


def no_sae_matches(patterns: Sequence[str], sae_ids: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"--sae-id {listed(patterns)} matches no SAE of the release",
            expected=f"a pattern (fnmatch) for one of: {listed(sae_ids)}",
            got=listed(patterns),
            attempt=f"--sae-id {sae_ids[0]!r}, or no --sae-id for all of them" if sae_ids else "no --sae-id",
        )
    )


def nothing_to_explain(pattern: str, sae_ids: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"--sae-explain {shown(pattern)} matches no SAE of the release",
            expected=f"a pattern (fnmatch) for one of: {listed(sae_ids)}",
            got=shown(pattern),
            attempt=f"--sae-explain {sae_ids[0]!r}, or '*' for all of them" if sae_ids else "no --sae-explain",
        )
    )


def pickles_needed(release: str, suffix: str) -> UsageError:
    return UsageError(
        said(
            f"the weights of release {shown(release)} are {shown(suffix)} files, which nothing loads unasked",
            expected="safetensors, or --sae-allow-pickle",
            got=f"{shown(suffix)} files and no --sae-allow-pickle",
            attempt="--sae-allow-pickle: torch and NumPy then read tensors from them, and still run no code of theirs",
        )
    )


def bad_cfg(sae_id: str, problem: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: cfg.json cannot be used: {problem}",
            expected="a configuration as SAE Lens saves it (architecture, d_in, d_sae, metadata.hook_name, ...)",
            got=problem,
            attempt="save the SAE again with sae.save_model",
        )
    )


def not_supported(sae_id: str, key: str, value: str, supported: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: {key} = {shown(value)} is not supported, and ignoring it would measure something else",
            expected=f"{key}: {supported}",
            got=shown(value),
            attempt="an SAE without it; for activation norms, fold them into the weights before saving",
        )
    )


def unknown_hook(sae_id: str, hook: str, known: Sequence[str]) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: hook {shown(hook)!r} is not known",
            expected=f"one of TransformerLens's names: {listed(known, n_most=12)}",
            got=shown(hook),
            attempt="correct metadata.hook_name in its cfg.json",
        )
    )


def cross_layer(sae_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: a layer of a cross-layer transcoder does not reconstruct anything by itself",
            expected="an SAE or transcoder that writes to one place",
            got="one that writes to every later layer; SAE Lens adds those up, for finding latents, not to reconstruct",
            attempt="a per-layer release of the same model",
        )
    )


def only_pickle(sae_id: str, file: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: only a pickle is present, and a pickle can run any code when it is loaded",
            expected="safetensors; SAE Lens reads no pickle of this format, so --sae-allow-pickle does not help here",
            got=shown(file),
            attempt="convert it to safetensors where you trust it",
        )
    )


def pickle_refused(sae_id: str, file: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: its weights are a pickle or .npz, which nothing loads unasked",
            expected="safetensors, or --sae-allow-pickle",
            got=shown(file),
            attempt="--sae-allow-pickle: torch and NumPy then read tensors from it, and still run no code of its",
        )
    )


def not_converted(sae_id: str, converter: str, problem: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: SAE Lens's converter {shown(converter)} cannot read it: {shown(problem, n_most=300)}",
            expected="the files of that format, all in the pinned repository",
            got=shown(problem, n_most=300),
            attempt="the revision that this release had when SAE Lens learnt to read it (--sae-revision)",
        )
    )


def bad_weights(sae_id: str, problem: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: its weights cannot be used: {shown(problem, n_most=300)}",
            expected="a whole sae_weights.safetensors that agrees with cfg.json",
            got=shown(problem, n_most=300),
            attempt="copy or save the file again",
        )
    )


def changed_meanwhile(sae_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: its files have changed while it was measured",
            expected="the files that it was first loaded from",
            got="another size or time of change",
            attempt="run again when nobody writes them",
        )
    )
