"""
Every exception and every sentence a user can meet.

A message says what is wrong, what was expected (and where that is written), what was got, and what to try. Exceptions
take one string, so that they survive pickling to another process. `tests/test_errors.py` renders each of them once.
"""

from __future__ import annotations

from collections.abc import Sequence


class SaeChecksError(Exception):
    """Anything this package says on purpose."""


class UsageError(SaeChecksError):
    """What was asked cannot be done as asked: exit code 4, nothing measured, nothing written."""


class SaeError(SaeChecksError):
    """One SAE cannot be measured: its checks are errors, the other SAEs are judged."""


class HookNotHereError(SaeError):
    """A backend does not have the hook; another may."""


class MeasuringError(SaeChecksError):
    """The language model or a corpus cannot be used: every check that needs it is an error."""


class ModelNotUnderstoodError(MeasuringError):
    """A backend cannot take the model apart; another may."""


class HubError(SaeChecksError):
    """The Hugging Face Hub did not give what was asked of it."""


class HubNameError(HubError):
    """What was asked for is not there: exit code 4, as for any name that is wrong."""


class HubBusyError(HubError):
    """It may give it later."""

    wait_s: float = 0.0
    """how long the Hub asks to wait."""


class RecordError(SaeChecksError):
    """A file is not a run record of a schema that this version reads."""


class HistoryError(SaeChecksError):
    """A history of runs cannot be written or read: no verdict changes, and it is not passed over."""


def shown(text: object, *, n_most: int = 120) -> str:
    """
    *text* fit for a terminal, JUnit and JSON: one line, printable, at most *n_most* characters.

    Names come from files that strangers wrote (cfg.json, folder names), so control characters are escaped.
    """
    printable = _escaped(str(text))
    return printable if len(printable) <= n_most else printable[: n_most - 3] + "..."


def _escaped(text: str) -> str:
    """*text* with every character that is not printable written as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def said(what: str, *, expected: str, got: str, attempt: str) -> str:
    """The four parts of a message, one line each."""
    what, expected, got, attempt = (_escaped(part) for part in (what, expected, got, attempt))
    return f"{what}\n  expected: {expected}\n  got:      {got}\n  try:      {attempt}"


def _listed(names: Sequence[str], *, n_most: int = 8) -> str:
    head = ", ".join(shown(name) for name in names[:n_most]) or "nothing"
    return head if len(names) <= n_most else f"{head} and {len(names) - n_most} more"


def bad_option(flag: str, got: str, expected: str) -> UsageError:
    return UsageError(
        said(f"{flag} cannot be {shown(got)!r}", expected=expected, got=shown(got), attempt=f"{flag} with such a value")
    )


def device_unavailable(device: str) -> UsageError:
    return UsageError(
        said(
            f"--sae-device {device}: this machine's torch finds no such device",
            expected="a device that torch can use here",
            got=device,
            attempt="--sae-device auto, or a torch build for that device",
        )
    )


def unknown_release(name: str, nearest: Sequence[str], known: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"no SAE release {shown(name)!r}",
            expected="a folder of SAEs (cfg.json beside sae_weights.safetensors), a name that sae-checks list prints, "
            f"a Hub repository org/name, or one of: {_listed(known)}",
            got=shown(name),
            attempt=f"--sae-release {shown(nearest[0])}" if nearest else "the path of a folder, or --sae-release demo",
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
            f"--sae-id {_listed(patterns)} matches no SAE of the release",
            expected=f"a pattern (fnmatch) for one of: {_listed(sae_ids)}",
            got=_listed(patterns),
            attempt=f"--sae-id {sae_ids[0]!r}, or no --sae-id for all of them" if sae_ids else "no --sae-id",
        )
    )


def nothing_to_explain(pattern: str, sae_ids: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"--sae-explain {shown(pattern)} matches no SAE of the release",
            expected=f"a pattern (fnmatch) for one of: {_listed(sae_ids)}",
            got=shown(pattern),
            attempt=f"--sae-explain {sae_ids[0]!r}, or '*' for all of them" if sae_ids else "no --sae-explain",
        )
    )


def not_explained(path: str, pattern: str, sae_ids: Sequence[str], explained: Sequence[str]) -> RecordError:
    return RecordError(
        said(
            f"{path} explains no SAE that {shown(pattern)} matches",
            expected="a record of a run with --sae-explain, and one of the SAEs that it explains",
            got=f"explained: {_listed(explained) if explained else 'none'}; SAEs: {_listed(sae_ids)}",
            attempt=f"pytest --sae-release=NAME --sae-explain={shown(pattern)!r} --sae-record=FILE",
        )
    )


def option_needed(flag: str, release: str, what: str) -> UsageError:
    return UsageError(
        said(
            f"release {shown(release)} needs {flag}",
            expected=f"{what} (only the embedded releases bring their own)",
            got="no such option",
            attempt=f"pytest --sae-release {shown(release)} {flag} PATH",
        )
    )


def too_many_shards(shard: str, n_saes: int) -> UsageError:
    return UsageError(
        said(
            f"--sae-shard {shown(shard)}: there are not so many SAEs",
            expected=f"at most {n_saes} shards: every one has an SAE",
            got=shown(shard),
            attempt=f"--sae-shard 1/{n_saes}, or fewer; sae-checks plan --shards N finds how many there can be",
        )
    )


def no_model(path: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"--sae-model {shown(path)}: {problem}",
            expected="a folder in Hugging Face format: config.json, *.safetensors, tokenizer files",
            got=shown(path),
            attempt="the folder that model.save_pretrained and tokenizer.save_pretrained wrote",
        )
    )


def context_too_long(asked: int, available: int) -> UsageError:
    return UsageError(
        said(
            f"--sae-context {asked} is longer than the model's context",
            expected=f"at most {available} tokens (the model's config.json)",
            got=str(asked),
            attempt=f"--sae-context {available}",
        )
    )


def bad_corpus(flag: str, path: str, problem: str, expected: str) -> UsageError:
    return UsageError(
        said(
            f"{flag} {shown(path)}: {problem}",
            expected=expected,
            got=problem,
            attempt=f"{flag} with a file of that form",
        )
    )


def bad_thresholds(path: str, where: str, problem: str, expected: str) -> UsageError:
    return UsageError(
        said(
            f"{shown(path)} {shown(where)}: {shown(problem)}",
            expected=expected,
            got=shown(problem),
            attempt="the shipped thresholds.toml as a pattern; its head explains every key",
        )
    )


def no_limit(check: str, sae_id: str, files: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"no limit for check {check!r} of {shown(sae_id)}",
            expected=f"a table [default.{check}]   ({_listed(files)})",
            got="none that applies",
            attempt="add the table by hand, with measure, max or min, unit and source",
        )
    )


def no_check_ran(paths: Sequence[str]) -> str:
    return said(
        "no check of the release ran: this is not a pass",
        expected="at least one check with a verdict",
        got=f"none, from {_listed(paths)}",
        attempt="no path at all, or --pyargs sae_checks.gate; look for a path in addopts, and for -k, -m or --deselect",
    )


def sae_not_judged(sae_ids: Sequence[str]) -> str:
    return said(
        f"{len(sae_ids)} SAE(s) of the release got no verdict: this is not a pass",
        expected="every SAE judged by at least one of the checks selected for it",
        got=f"no verdict for {_listed(sae_ids)}",
        attempt="read the reasons of the skips and warnings above (pytest -rs)",
    )


def not_calibrated(path: str, problem: str) -> str:
    return said(
        f"no limits were written to {shown(path)}",
        expected="at least one measured value, and a new file that can be written",
        got=shown(problem, n_most=300),
        attempt="again with another file, or with --sae-record: a record keeps everything that was measured",
    )


def release_not_given(flags: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            "there is no release to judge",
            expected="--sae-release NAME-OR-FOLDER",
            got=_listed(flags),
            attempt="pytest --sae-release demo",
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


def changed_meanwhile(sae_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: its files have changed while it was measured",
            expected="the files that it was first loaded from",
            got="another size or time of change",
            attempt="run again when nobody writes them",
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


def cross_layer(sae_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: a layer of a cross-layer transcoder does not reconstruct anything by itself",
            expected="an SAE or transcoder that writes to one place",
            got="one that writes to every later layer; SAE Lens adds those up, for finding latents, not to reconstruct",
            attempt="a per-layer release of the same model",
        )
    )


def unknown_hook(sae_id: str, hook: str, known: Sequence[str]) -> SaeError:
    return SaeError(
        said(
            f"{shown(sae_id)}: hook {shown(hook)!r} is not known",
            expected=f"one of TransformerLens's names: {_listed(known, n_most=12)}",
            got=shown(hook),
            attempt="correct metadata.hook_name in its cfg.json",
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
            f"{shown(sae_id)}: only TransformerLens computes what it was trained on ({_listed(processing)})",
            expected="a backend that processes the model's weights",
            got="--sae-backend transformers",
            attempt="--sae-backend auto",
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


def stack_of_several(stack_id: str) -> SaeError:
    return SaeError(
        said(
            f"{shown(stack_id)}: its SAEs do not share one model and one convention",
            expected="one language model, one backend and one rule for BOS",
            got="several",
            attempt="choose those that do with --sae-id, or set --sae-bos and --sae-backend",
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


def dataset_not_read(flag: str, source: str, problem: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag}: the dataset {shown(source)} cannot be read",
            expected="parquet or JSON of the form in the flag's help, named org/name[@revision][:config][:split]",
            got=shown(problem, n_most=300),
            attempt=f"{flag} with a file, or with another dataset",
        )
    )


def other_tokenizer(flag: str, source: str, problem: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag}: the token ids of {shown(source)} were made by another tokenizer than the model's",
            expected="ids of the model's own tokenizer: those of another give a loss, too, and it means nothing",
            got=shown(problem, n_most=300),
            attempt=f"{flag} with plain text, or with ids of this tokenizer",
        )
    )


def packed_unmarked(flag: str, source: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag}: the rows of {shown(source)} hold several documents each, and nothing tells one from the next",
            expected="one document per row, or BOS or EOS between them",
            got="its sae_lens.json: documents are concatenated, with neither BOS nor EOS as their separator",
            attempt=f"{flag} with plain text",
        )
    )


def no_answer_tokens(item: int, n_target: int, n_context: int) -> MeasuringError:
    return MeasuringError(
        said(
            f"--sae-lambada: the last word of passage {item} cannot be scored",
            expected=f"at least one token of its own, and fewer than the context of {n_context}",
            got=f"{n_target} tokens",
            attempt="remove that passage, or look at the tokenizer",
        )
    )


def golden_not_scored(prompt: str, answer: str, problem: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"the answer {shown(answer)!r} to the golden prompt {shown(prompt)!r} cannot be scored",
            expected="tokens of its own behind those of the prompt, and fewer than the model's context in all",
            got=problem,
            attempt="move a space from the prompt's end to the answer's beginning, or look at the tokenizer",
        )
    )


def query_too_long(item: int, n_query: int, n_context: int) -> MeasuringError:
    return MeasuringError(
        said(
            f"--sae-cbt: query {item} is longer than the context",
            expected=f"fewer than {n_context} tokens, with room for something before it",
            got=f"{n_query} tokens",
            attempt="remove that row; only a passage can be cut, not what is scored",
        )
    )


def nothing_to_score(flag: str, path: str) -> MeasuringError:
    return MeasuringError(
        said(
            f"{flag} {shown(path)}: no text is left to score after tokenising",
            expected="documents of at least two tokens that the tokenizer knows",
            got="none",
            attempt=f"{flag} with longer documents",
        )
    )


def not_mergeable(record: str, what: str, first: str, here: str) -> RecordError:
    return RecordError(
        said(
            f"{shown(record)} is not of the same run as the first record: {shown(what)} differs",
            expected=shown(first, n_most=300),
            got=shown(here, n_most=300),
            attempt="records of runs that differ in --sae-shard alone, made by one version on the same files",
        )
    )


def shards_missing(cells: Sequence[str]) -> RecordError:
    return RecordError(
        said(
            f"{len(cells)} check(s) of the release are in none of the records: this is not the whole release",
            expected="a record of every shard",
            got=f"none that has {_listed(cells)}",
            attempt="run the missing shards; a shard that failed to start leaves no record",
        )
    )


def checks_are_red(cells: Sequence[str]) -> str:
    return said(
        f"{len(cells)} check(s) did not pass",
        expected="every check that was selected passed, was reported, or was not measured for a stated reason",
        got=_listed(cells),
        attempt="read the verdicts above; sae-checks report RECORD shows them with what they rest on",
    )


def hub_no_repo(repo_id: str) -> HubNameError:
    return HubNameError(
        said(
            f"the Hub has no repository {shown(repo_id)}, or not for you",
            expected="a public repository, or one that your token (HF_TOKEN, hf auth login) can read",
            got="repository not found",
            attempt="look at its name and your login",
        )
    )


def hub_gated(repo_id: str) -> HubError:
    return HubError(
        said(
            f"the repository {shown(repo_id)} is gated",
            expected="access granted to the account of your token (HF_TOKEN, hf auth login)",
            got="access denied",
            attempt="accept its terms on its page, then log in",
        )
    )


def hub_no_revision(repo_id: str, revision: str) -> HubNameError:
    return HubNameError(
        said(
            f"the repository {shown(repo_id)} has no revision {shown(revision)!r}",
            expected="a branch, a tag or a commit",
            got=shown(revision),
            attempt="--sae-revision with one that exists, or none for main",
        )
    )


def hub_no_file(source: str, path: str) -> HubError:
    return HubError(
        said(
            f"{shown(source)} has no file {shown(path)}",
            expected="that file in that commit",
            got="file not found",
            attempt="another revision, or tell the release's authors",
        )
    )


def hub_unsafe_path(source: str, path: str) -> HubError:
    return HubError(
        said(
            f"{shown(source)} names a file that would lie outside of it: {shown(path)}",
            expected="paths inside the repository",
            got=shown(path),
            attempt="another release: this one means harm",
        )
    )


def hub_too_large(source: str, path: str, n_bytes: int, n_most: int) -> HubError:
    return HubError(
        said(
            f"{shown(path)} of {shown(source)} has {n_bytes} bytes and is not fetched",
            expected=f"at most {n_most} bytes",
            got=str(n_bytes),
            attempt="look at that file on the Hub",
        )
    )


def hub_busy(repo_id: str, problem: str, *, wait_s: float = 0.0) -> HubBusyError:
    raised = HubBusyError(
        said(
            f"the Hub does not answer for {shown(repo_id)}; nothing old is used in its place",
            expected="an answer from the Hub (HF_ENDPOINT)",
            got=shown(problem, n_most=300),
            attempt="again later, or --sae-offline to use exactly the commit that is cached",
        )
    )
    raised.wait_s = wait_s
    return raised


def hub_too_slow(source: str, path: str, limit_s: float) -> HubBusyError:
    return HubBusyError(
        said(
            f"{shown(path)} of {shown(source)} did not arrive",
            expected=f"within {limit_s:.0f} s",
            got="less than that",
            attempt="again later",
        )
    )


def hub_wrong_hash(source: str, path: str, expected: str, got: str) -> HubError:
    return HubError(
        said(
            f"{shown(path)} of {shown(source)} is not what the Hub says it is; it was removed from the cache",
            expected=f"hash {expected}",
            got=f"hash {got}",
            attempt="again; if it stays so, something between you and the Hub changes files",
        )
    )


def hub_not_cached(repo_id: str, revision: str) -> HubError:
    return HubError(
        said(
            f"offline, and {shown(repo_id)} at {shown(revision)!r} is not in the cache",
            expected="a run with the Hub in reach before, into this cache (HF_HOME)",
            got="no such commit in the cache",
            attempt="once without --sae-offline and HF_HUB_OFFLINE",
        )
    )


def bad_record(path: str, problem: str) -> RecordError:
    return RecordError(
        said(
            f"{shown(path)} is not a run record: {shown(problem, n_most=300)}",
            expected="strict JSON with schema 3, as --sae-record writes it",
            got=shown(problem, n_most=300),
            attempt="pytest --sae-release X --sae-record FILE",
        )
    )


def bad_baseline(asked: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"--sae-baseline {shown(asked)} is no run to compare with",
            expected="a run record of this schema, last, or a git revision that has the record",
            got=shown(problem, n_most=300),
            attempt="pytest --sae-release X --sae-record FILE once, then --sae-baseline=last with the same",
        )
    )


def nothing_in_common(baseline: str, before: Sequence[str], now: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"the baseline {shown(baseline)} and this run have no SAE in common",
            expected=f"one of {_listed(now)}",
            got=_listed(before),
            attempt="the record of an earlier version of this release, whose SAEs have the same ids",
        )
    )


def not_comparable(subject: str, what: str, before: str, after: str) -> RecordError:
    return RecordError(
        said(
            f"{shown(subject)} cannot be compared with the baseline: {what} is not the same",
            expected=f"{shown(before)}, as in the baseline",
            got=shown(after),
            attempt="the options and corpora of the baseline, or a new baseline",
        )
    )


def nothing_compared(baseline: str) -> str:
    return said(
        f"nothing was compared with the baseline {shown(baseline)}",
        expected="a verdict on at least one difference",
        got="none; the skips and warnings above say why (pytest -rs)",
        attempt="a baseline that has measured the same checks of the same SAEs",
    )


def bad_history(url: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"--sae-history {shown(url)} cannot be used",
            expected="a folder that can be written, or a URL of a file system that fsspec knows and whose package is "
            "installed (s3:// needs s3fs, gs:// needs gcsfs)",
            got=shown(problem, n_most=300),
            attempt="another place; a folder needs no package",
        )
    )


def history_not_kept(url: str, problem: str) -> HistoryError:
    return HistoryError(
        said(
            f"the record of this run is not in the history {shown(url)}",
            expected="one more file there",
            got=shown(problem, n_most=300),
            attempt="--sae-record FILE keeps a run's record here, and sae-checks history URL --keep FILE adds it later",
        )
    )


def history_not_read(url: str, problem: str) -> HistoryError:
    return HistoryError(
        said(
            f"the history {shown(url)} cannot be read",
            expected="a folder or URL that --sae-history has written to",
            got=shown(problem, n_most=300),
            attempt="look at the place with its own tools; nothing of it has been changed",
        )
    )


def no_history(url: str, release: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"the history {shown(url)} has no run of {shown(release)}",
            expected=f"one of: {_listed(known)}",
            got=shown(release),
            attempt="pytest --sae-release X --sae-history URL keeps one",
        )
    )


def no_such_run(asked: str, url: str, run_ids: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"no run {shown(asked)!r}",
            expected="the path of a run record, or with --sae-history URL the id of one run, whole or its beginning or "
            "end",
            got=f"no such file, and in {shown(url)}: {_listed(run_ids)}",
            attempt="sae-checks history URL lists the ids",
        )
    )


def unknown_measure(asked: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        said(
            f"no run of this history has a measure {shown(asked)!r}",
            expected=f"one of: {_listed(known, n_most=60)}",
            got=shown(asked),
            attempt="no --measure for those that are limited",
        )
    )


def wandb_missing(problem: str) -> UsageError:
    return UsageError(
        said(
            "--format wandb needs the package wandb",
            expected="wandb, which transformer-lens 3 brings along",
            got=shown(problem, n_most=300),
            attempt="pip install wandb",
        )
    )


def not_written(path: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"{shown(path)} cannot be written",
            expected="a file in a folder that exists and can be written",
            got=shown(problem, n_most=300),
            attempt="another path",
        )
    )


def nothing_to_export(path: str, what: str) -> UsageError:
    return UsageError(
        said(
            f"the record {shown(path)} has nothing to export",
            expected=what,
            got="none",
            attempt="the record of a run that measured something",
        )
    )


def report_not_written(folder: str, problem: str) -> UsageError:
    return UsageError(
        said(
            f"the report cannot be written to {shown(folder)}",
            expected="a folder, or a place where one can be made",
            got=shown(problem, n_most=300),
            attempt="another --sae-report DIR; sae-checks report RECORD --out DIR writes it from the run record, too",
        )
    )


def no_matplotlib() -> str:
    return said(
        "the report has no PNGs of its plots",
        expected="matplotlib, which draws them",
        got="it is not installed; index.html and summary.md are whole without it",
        attempt="pip install 'sae-checks[report]'",
    )
