"""Whether an earlier run was in the same models on the same texts, as far as that is known before measuring."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sae_checks import errors
from sae_checks.comparing.baseline import Baseline
from sae_checks.plan.corpus_source import CorpusSource
from sae_checks.plan.model_source import ModelSource
from sae_checks.plan.plan import Plan
from sae_checks.provenance import CorpusFacts
from sae_checks.release.release import Sae, sha256_of

_DATASET = re.compile(r"([^/@]+/[^/@]+)@[0-9a-f]{40}:([^:]*):([^:]*)")
"""name of a dataset in a record: `org/name@commit:config:split`, see `CorpusSource.name`."""


def check(earlier: Baseline, planned: Plan) -> None:
    """
    Check that *earlier* can be compared with what is *planned*. `baseline.compare` checks what only measuring tells.

    Raises:
        UsageError: another model, text, seed, context or rule for special tokens.
    """
    for what, flag, before, now in (*_options(earlier, planned), *_texts(earlier, planned), *_models(earlier, planned)):
        raise errors.other_conditions(earlier.source, what, flag, before, now)


Difference = tuple[str, str, str, str]
"""(what differs, the option that gives it, its value in the earlier run, and now)."""


def _options(earlier: Baseline, planned: Plan) -> Iterator[Difference]:
    before = dict(earlier.options)
    of_plan = (
        ("seed", "--sae-seed", "seed", planned.options.seed),
        ("context length", "--sae-context", "n_context_tokens", planned.n_context_tokens),
        ("rule for special tokens", "--sae-special-tokens", "special_tokens", planned.options.special_tokens),
    )
    for what, flag, key, now in of_plan:
        if before.get(key) not in (None, now):
            yield what, flag, str(before[key]), str(now)


def _texts(earlier: Baseline, planned: Plan) -> Iterator[Difference]:
    facts = {r.provenance.corpus.kind: r.provenance.corpus for r in earlier.results if r.provenance is not None}
    for kind, what, source in (
        ("text", "corpus", planned.corpus),
        ("lambada", "lambada", planned.lambada),
        ("cbt", "cbt", planned.cbt),
    ):
        if kind in facts and source is not None and not _is_same_text(facts[kind], source):
            now = source.name if source.path is None else f"{source.name}, sha256 {sha256_of(source.path)[:12]}"
            yield f"{kind} corpus" if kind != "text" else "corpus", f"--sae-{what}", facts[kind].source, now


def _is_same_text(before: CorpusFacts, now: CorpusSource) -> bool:
    """Whether both may be the same. Rows of a dataset may be the same in another commit: their fingerprint tells."""
    dataset = _DATASET.fullmatch(before.source)
    if now.wanted is not None:  # not pinned yet; of a default text, what replaces it is not known either
        return now.wanted.is_training_text or dataset is None or dataset[1] == now.wanted.repo_id
    if now.path is not None:
        return dataset is not None or before.sha256 == sha256_of(now.path)
    found = _DATASET.fullmatch(now.name)
    return dataset is None or found is None or dataset.groups() == found.groups()


def _models(earlier: Baseline, planned: Plan) -> Iterator[Difference]:
    before = {r.sae_id: r.provenance.model for r in earlier.results if r.provenance is not None}
    saes = [sae for sae in planned.release.saes if isinstance(sae, Sae) and sae.sae_id in before]
    hashes = {source: _hashes(source) for source in {planned.model_of(sae) for sae in saes}}
    for sae in saes:
        facts, source = before[sae.sae_id], planned.model_of(sae)
        now = hashes[source]
        if now and facts.source != "in memory" and sorted(file.sha256 for file in facts.weights) != list(now):
            yield "model", "--sae-model", facts.source, source.name


def _hashes(source: ModelSource) -> tuple[str, ...]:
    """The sha256 of each file of weights, sorted; empty: not known before the model is loaded."""
    if source.in_memory is not None:
        return ()
    if source.folder is not None:
        return tuple(sorted(sha256_of(path) for path in source.folder.glob("*.safetensors")))
    assert source.repo is not None
    files = [file for file in source.repo.files if "/" not in file.path and file.path.endswith(".safetensors")]
    if source.transformer_lens is not None:
        files = [file for file in source.repo.files if file.path == source.transformer_lens.weights]
    hashes = sorted(file.blob or "" for file in files)
    return tuple(hashes) if all(len(each) == 64 for each in hashes) else ()
