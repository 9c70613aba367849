"""Measure in this process: the model and each corpus once, all SAEs that are wanted together in one clean pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import torch

from sae_checks import errors, measure, sae
from sae_checks.corpora import datasets, files, lambada, text
from sae_checks.corpora.sequences import Convention, Sequences
from sae_checks.corpus_place import CorpusPlace
from sae_checks.losses import ItemLosses, TextLosses
from sae_checks.model import hugging_face
from sae_checks.model.interface import LanguageModel
from sae_checks.plan import Plan
from sae_checks.provenance import CorpusFacts, Provenance
from sae_checks.release import BrokenSae, Sae, sha256_of
from sae_checks.splice import splice

Losses = TypeVar("Losses", TextLosses, ItemLosses)
Progress = Callable[[str, int, int], None]
"""Told (what is measured, tokens done, tokens in all)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured(Generic[Losses]):
    """The losses of one SAE and what they were made of."""

    losses: Losses
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Corpus:
    sequences: Sequences
    facts: CorpusFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where a corpus comes from and how much of it is taken."""

    place: CorpusPlace
    flag: str
    read: Callable[[Path], tuple[str, ...]]
    tokenise: Callable[..., Sequences]
    n_most: int
    """sequences or items that are measured."""
    n_read: int
    """rows that are read of a dataset, some of which may be too short."""
    n_context_tokens: int


class LocalExecutor:
    """
    Measures SAEs of a plan on demand.

    Asking for one SAE measures every SAE of *together* (a group that holds it) that is not measured yet, so that they
    share the clean pass. An error belongs to what it concerns and is raised again each time that is asked for.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._described = {s.sae_id: s for s in plan.release.saes}
        self._loaded: dict[str, sae.LoadedSae | errors.SaeError] = {}
        self._corpora: dict[tuple[str, bool], _Corpus] = {}
        self._text: dict[str, Measured[TextLosses] | errors.SaeChecksError] = {}
        self._items: dict[str, Measured[ItemLosses] | errors.SaeChecksError] = {}
        self._model_problem: errors.MeasuringError | None = None

    def text(self, sae_id: str, together: Collection[str]) -> Measured[TextLosses]:
        """
        *sae_id* on the text corpus.

        Raises:
            SaeError: this SAE cannot be measured.
            MeasuringError: the model or the corpus cannot be used.
        """
        self._measure("text", self._text, measure.measure_text, sae_id, together)
        return _found(self._text[sae_id])

    def items(self, sae_id: str, together: Collection[str]) -> Measured[ItemLosses]:
        """*sae_id* on the Lambada passages; raises like `text`."""
        self._measure("lambada", self._items, measure.measure_items, sae_id, together)
        return _found(self._items[sae_id])

    def spliced_forward(self, sae_id: str) -> Callable[[], None]:
        """What a benchmark times: encode, decode and resume the model, on the first sequences of the plan."""
        model, ready = self.model, self._ready(sae_id)
        corpus = self._corpus("text", self._prepends_bos(sae_id)).sequences
        n = max(1, self._plan.options.n_batch_tokens // corpus.tokens.shape[1])
        tokens = torch.from_numpy(corpus.tokens[:n]).to(model.device)
        replaced = torch.from_numpy(corpus.replaced[:n]).to(model.device)
        activation = model.clean(tokens, [ready.hook]).activations[ready.hook]

        def forward() -> None:
            model.resume(tokens, ready.hook, splice(activation, replaced, ready).activation)
            if model.device.type == "cuda":
                torch.cuda.synchronize()  # kernels run behind the call

        return forward

    @property
    def model(self) -> LanguageModel:
        """The plan's model, loaded at first use."""
        if self._model_problem is not None:
            raise self._model_problem
        try:
            return self._loaded_model
        except errors.MeasuringError as problem:
            self._model_problem = problem
            raise

    @cached_property
    def _loaded_model(self) -> LanguageModel:
        options = self._plan.options
        device = hugging_face.pick_device(options.device)
        try:
            folder = self._plan.model.fetched()
        except errors.HubError as problem:
            raise errors.MeasuringError(str(problem)) from None
        return hugging_face.load(folder, source=self._plan.model.source, dtype=options.dtype, device=device)

    def _measure(
        self,
        kind: str,
        into: dict[str, Measured[Losses] | errors.SaeChecksError],
        run: Callable[..., tuple[Losses | measure.Fault, ...]],
        sae_id: str,
        together: Collection[str],
    ) -> None:
        if sae_id in into:
            return
        groups: dict[bool, list[Sae]] = {}
        for each in dict.fromkeys([*together, sae_id]):
            if each not in into:
                try:
                    self._ready(each)
                    groups.setdefault(self._prepends_bos(each), []).append(self._sound(each))
                except errors.SaeError as problem:
                    into[each] = problem
        for prepends_bos, group in groups.items():
            try:
                into.update(self._measure_group(kind, run, group, prepends_bos))
            except (errors.MeasuringError, RuntimeError) as problem:  # torch's errors, out of memory included
                into.update(dict.fromkeys((s.sae_id for s in group), errors.MeasuringError(str(problem))))

    def _measure_group(
        self,
        kind: str,
        run: Callable[..., tuple[Losses | measure.Fault, ...]],
        group: list[Sae],
        prepends_bos: bool,
    ) -> dict[str, Measured[Losses] | errors.SaeChecksError]:  # a dict: rows of one of this class's own
        corpus = self._corpus(kind, prepends_bos)
        measured = run(
            self.model,
            [self._ready(s.sae_id) for s in group],
            corpus.sequences,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=lambda done, total: self._progress(kind, done, total),
        )
        found: dict[str, Measured[Losses] | errors.SaeChecksError] = {}
        for described, losses in zip(group, measured, strict=True):
            if isinstance(losses, measure.Fault):
                found[described.sae_id] = errors.SaeError(losses.problem)
                continue
            made_of = Provenance(
                sae=sae.facts(described, self._ready(described.sae_id)), model=self.model.facts, corpus=corpus.facts
            )
            found[described.sae_id] = Measured(losses=losses, provenance=made_of)
        return found

    def _sound(self, sae_id: str) -> Sae:
        described = self._described[sae_id]
        if isinstance(described, BrokenSae):
            raise errors.SaeError(described.problem)
        return described

    def _ready(self, sae_id: str) -> sae.LoadedSae:
        if sae_id not in self._loaded:
            described = self._sound(sae_id)
            try:
                self.model.check_hook(sae_id, described.hook, described.d_in)
                center = described.center_writing_weights and self.model.uses_layer_norm
                self._loaded[sae_id] = sae.load(described, device=self.model.device, center=center)
            except errors.SaeError as problem:
                self._loaded[sae_id] = problem
        found = self._loaded[sae_id]
        if isinstance(found, errors.SaeError):
            raise found
        return found

    def _prepends_bos(self, sae_id: str) -> bool:
        asked = self._plan.options.bos
        if asked != "auto":
            return asked == "on"
        trained = self._sound(sae_id).prepend_bos
        if trained is None:
            raise errors.bos_unknown(sae_id)
        return trained

    def _corpus(self, kind: str, prepends_bos: bool) -> _Corpus:
        if (kind, prepends_bos) not in self._corpora:
            self._corpora[kind, prepends_bos] = self._tokenise(kind, prepends_bos)
        return self._corpora[kind, prepends_bos]

    def _tokenise(self, kind: str, prepends_bos: bool) -> _Corpus:
        options, tokenizer = self._plan.options, self.model.tokenizer
        source = self._source(kind)
        bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if prepends_bos and bos is None:
            raise errors.no_bos(self._plan.model.source)
        convention = Convention(
            prepend_bos=prepends_bos,
            special_tokens_kept=options.special_tokens == "keep",
            n_context_tokens=source.n_context_tokens,
        )
        texts = self._texts(source)
        sequences = source.tokenise(
            texts, tokenizer, convention, bos=bos if prepends_bos else None, n_most=source.n_most, seed=options.seed
        )
        if not sequences.scored.any():
            raise errors.nothing_to_score(source.flag, source.place.source)
        facts = CorpusFacts(
            kind=kind,
            source=source.place.source,
            sha256=_hash_of(source.place, texts),
            fingerprint=sequences.fingerprint,
            prepend_bos=prepends_bos,
            n_sequences=len(sequences.rows),
            n_scored_tokens=int(sequences.scored.sum()),
            n_context_tokens=source.n_context_tokens,
            n_cut=sequences.n_cut,
        )
        return _Corpus(sequences=sequences, facts=facts)

    def _texts(self, source: _Source) -> tuple[str, ...]:
        if source.place.path is not None:
            return source.read(source.place.path)
        texts = datasets.read_texts(source.place, n_most=source.n_read, seed=self._plan.options.seed, flag=source.flag)
        if source.tokenise is lambada.tokenise and not all(map(files.has_last_word, texts)):
            raise errors.dataset_not_read(source.flag, source.place.source, "a passage has no last word")
        return texts

    def _source(self, kind: str) -> _Source:
        plan, options = self._plan, self._plan.options
        if kind == "text":
            return _Source(
                place=plan.corpus,
                flag="--sae-corpus",
                read=files.read_documents,
                tokenise=text.tokenise,
                n_most=options.n_sequences,
                n_read=2 * options.n_sequences,
                n_context_tokens=plan.n_context_tokens,
            )
        assert plan.lambada is not None  # without passages there is nothing to ask for
        return _Source(
            place=plan.lambada,
            flag="--sae-lambada",
            read=files.read_passages,
            tokenise=lambada.tokenise,
            n_most=options.n_items,
            n_read=options.n_items,
            n_context_tokens=plan.n_model_context_tokens or plan.n_context_tokens,
        )


def _hash_of(place: CorpusPlace, texts: tuple[str, ...]) -> str:
    """Of the file; of a dataset, of the texts that were read from it."""
    if place.path is not None:
        return sha256_of(place.path)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _found(entry: Measured[Losses] | errors.SaeChecksError) -> Measured[Losses]:
    if isinstance(entry, errors.SaeChecksError):
        raise entry
    return entry
