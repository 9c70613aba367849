"""Measure in this process: the model and each corpus once, all SAEs that are wanted together in one clean pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from sae_checks import errors, measure, sae
from sae_checks.corpora import datasets, files, golden, lambada, text
from sae_checks.corpora.sequences import Convention, Sequences
from sae_checks.corpus_place import CorpusPlace
from sae_checks.golden import Golden
from sae_checks.losses import ItemLosses, ItemText, TextLosses
from sae_checks.model.interface import LanguageModel, instead
from sae_checks.model.loading import Models
from sae_checks.plan import Plan
from sae_checks.provenance import CorpusFacts, Provenance
from sae_checks.release import BrokenSae, Sae, sha256_of
from sae_checks.splice import splice

N_CHARACTERS_SHOWN = 200
"""of a passage: enough to see what the answer follows from."""

Losses = TypeVar("Losses", TextLosses, ItemLosses)
Progress = Callable[[str, int, int], None]
"""Told (what is measured, tokens done, tokens in all)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured(Generic[Losses]):
    """The losses of one SAE and what they were made of."""

    losses: Losses
    provenance: Provenance
    texts: tuple[ItemText, ...] = ()
    """of the items whose answer the splice lost or won."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Corpus:
    sequences: Sequences
    facts: CorpusFacts
    texts: tuple[str, ...]
    """by the index of an item in its file."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ready:
    """An SAE, and the model that it was trained on."""

    sae: sae.LoadedSae
    model: LanguageModel


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
        self._loaded: dict[str, _Ready | errors.SaeChecksError] = {}
        self._corpora: dict[tuple[str, bool, str], _Corpus] = {}
        self._text: dict[str, Measured[TextLosses] | errors.SaeChecksError] = {}
        self._items: dict[str, Measured[ItemLosses] | errors.SaeChecksError] = {}
        self._models = Models(plan)

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

    def golden(self, sae_id: str, known: Golden) -> Measured[ItemLosses]:
        """*sae_id* on its golden prompts, by their own rule for BOS and special tokens; raises like `text`."""
        ready = self._ready(sae_id)
        model, one = ready.model, ready.sae
        n_context, bos = model.facts.n_context_tokens, _bos(model) if known.prepend_bos else None
        sequences = golden.tokenise(known, model.tokenizer, bos=bos, n_context_tokens=n_context)
        n_batch = self._plan.options.n_batch_tokens
        try:  # without progress: it is a moment
            (losses,) = measure.measure_items(model, [one], sequences, n_batch_tokens=n_batch, progress=_silent)
        except RuntimeError as problem:
            raise errors.MeasuringError(str(problem)) from None
        if isinstance(losses, measure.Fault):
            raise errors.SaeError(losses.problem)
        facts = golden.facts(known, sequences, n_context_tokens=n_context)
        made_of = Provenance(sae=sae.facts(self._sound(sae_id), one), model=model.facts, corpus=facts)
        return Measured(losses=losses, provenance=made_of)

    def spliced_forward(self, sae_id: str) -> Callable[[], None]:
        """What a benchmark times: encode, decode and resume the model, on the first sequences of the plan."""
        ready = self._ready(sae_id)
        model = ready.model
        corpus = self._corpus("text", self._prepends_bos(sae_id), model).sequences
        n = max(1, self._plan.options.n_batch_tokens // corpus.tokens.shape[1])
        tokens = torch.from_numpy(corpus.tokens[:n]).to(model.device)
        replaced = torch.from_numpy(corpus.replaced[:n]).to(model.device)
        one = ready.sae
        clean = model.clean(tokens, {one.hook, one.hook_out})

        def forward() -> None:
            made = splice(clean.activation(one.hook), clean.activation(one.hook_out), replaced, one)
            model.resume(clean, {one.hook_out: instead(made.activation)})
            if model.device.type == "cuda":
                torch.cuda.synchronize()  # kernels run behind the call

        return forward

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
        groups: dict[tuple[LanguageModel, bool], list[str]] = {}
        for each in dict.fromkeys([*together, sae_id]):
            if each not in into:
                try:
                    groups.setdefault((self._ready(each).model, self._prepends_bos(each)), []).append(each)
                except (errors.SaeError, errors.MeasuringError) as problem:
                    into[each] = problem
        for (model, prepends_bos), group in groups.items():
            try:
                into.update(self._measure_group(kind, run, group, model, prepends_bos=prepends_bos))
            except (errors.MeasuringError, RuntimeError) as problem:  # torch's errors, out of memory included
                into.update(dict.fromkeys(group, errors.MeasuringError(str(problem))))

    def _measure_group(
        self,
        kind: str,
        run: Callable[..., tuple[Losses | measure.Fault, ...]],
        group: list[str],
        model: LanguageModel,
        *,
        prepends_bos: bool,
    ) -> dict[str, Measured[Losses] | errors.SaeChecksError]:  # a dict: rows of one of this class's own
        corpus = self._corpus(kind, prepends_bos, model)
        measured = run(
            model,
            [self._ready(sae_id).sae for sae_id in group],
            corpus.sequences,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=lambda done, total: self._progress(kind, done, total),
        )
        found: dict[str, Measured[Losses] | errors.SaeChecksError] = {}
        for sae_id, losses in zip(group, measured, strict=True):
            if isinstance(losses, measure.Fault):
                found[sae_id] = errors.SaeError(losses.problem)
                continue
            ready = self._ready(sae_id)
            made_of = Provenance(sae=sae.facts(self._sound(sae_id), ready.sae), model=model.facts, corpus=corpus.facts)
            texts = _texts_of_flips(losses, corpus.texts) if isinstance(losses, ItemLosses) else ()
            found[sae_id] = Measured(losses=losses, provenance=made_of, texts=texts)
        return found

    def _sound(self, sae_id: str) -> Sae:
        described = self._described[sae_id]
        if isinstance(described, BrokenSae):
            raise errors.SaeError(described.problem)
        return described

    def _ready(self, sae_id: str) -> _Ready:
        if sae_id not in self._loaded:
            try:
                self._loaded[sae_id] = self._load(self._sound(sae_id))
            except (errors.SaeError, errors.MeasuringError) as problem:
                self._loaded[sae_id] = problem
        found = self._loaded[sae_id]
        if isinstance(found, errors.SaeChecksError):
            raise found
        return found

    def _load(self, described: Sae) -> _Ready:
        model = self._models.of(described)
        part = _part(model, described)
        special = model.tokenizer.all_special_ids
        excluded = described.exclude_special_tokens
        if excluded and self._plan.options.special_tokens == "replace":
            raise errors.trained_without_special_tokens(described.sae_id)
        if not isinstance(excluded, bool) and (others := sorted(set(excluded) - set(special))):
            supported = f"special tokens of the tokenizer ({special})"
            raise errors.not_supported(described.sae_id, "exclude_special_tokens", str(others), supported)
        # TransformerLens's backend has centred the weights themselves
        center = described.center_writing_weights and model.uses_layer_norm and not model.facts.processing
        loaded = sae.load(described, device=model.device, center=center, part=part)
        return _Ready(sae=loaded, model=model)

    def _prepends_bos(self, sae_id: str) -> bool:
        asked = self._plan.options.bos
        if asked != "auto":
            return asked == "on"
        trained = self._sound(sae_id).prepend_bos
        if trained is None:
            raise errors.bos_unknown(sae_id)
        return trained

    def _corpus(self, kind: str, prepends_bos: bool, model: LanguageModel) -> _Corpus:
        key = (kind, prepends_bos, model.facts.source)
        if key not in self._corpora:
            self._corpora[key] = self._tokenise(kind, prepends_bos, model)
        return self._corpora[key]

    def _tokenise(self, kind: str, prepends_bos: bool, model: LanguageModel) -> _Corpus:
        options, tokenizer = self._plan.options, model.tokenizer
        source = self._source(kind)
        bos = _bos(model) if prepends_bos else None
        convention = Convention(
            prepend_bos=prepends_bos,
            special_tokens_kept=options.special_tokens == "keep",
            n_context_tokens=source.n_context_tokens,
        )
        texts = self._texts(source)
        sequences = source.tokenise(texts, tokenizer, convention, bos=bos, n_most=source.n_most, seed=options.seed)
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
        return _Corpus(sequences=sequences, facts=facts, texts=texts if kind == "lambada" else ())

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


def _part(model: LanguageModel, described: Sae) -> slice:
    """
    What *described* reads and writes of its hooks' last dimension, all of it or one head's.

    Raises:
        SaeError: its widths are not the model's, or there is no such head.
    """
    widths = [model.width(described.sae_id, hook) for hook in (described.hook, described.hook_out)]
    part = slice(0, None)
    if described.head is not None:
        if described.head >= model.n_heads:
            raise errors.no_such_head(described.sae_id, described.head, model.n_heads)
        d_head = widths[0] // model.n_heads
        part = slice(described.head * d_head, (described.head + 1) * d_head)
        widths = [d_head, d_head]
    for hook, width, d in zip(
        (described.hook, described.hook_out), widths, (described.d_in, described.d_out), strict=True
    ):
        if d != width:
            raise errors.wrong_width(described.sae_id, hook, d, width)
    return part


def _bos(model: LanguageModel) -> int:
    """The token that stands before every sequence."""
    tokenizer = model.tokenizer
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if bos is None:
        raise errors.no_bos(model.facts.source)
    return bos


def _silent(_n_done: int, _n_all: int) -> None:
    """No progress is told."""


def _texts_of_flips(losses: ItemLosses, texts: tuple[str, ...]) -> tuple[ItemText, ...]:
    """The passages whose answer is right one way and wrong the other."""
    found = []
    for item in losses.items[losses.clean_correct != losses.spliced_correct].tolist():
        passage, _, answer = texts[item].rpartition(" ")
        found.append(ItemText(item=item, passage_end=passage[-N_CHARACTERS_SHOWN:], answer=answer))
    return tuple(found)


def _hash_of(place: CorpusPlace, texts: tuple[str, ...]) -> str:
    """Of the file; of a dataset, of the texts that were read from it."""
    if place.path is not None:
        return sha256_of(place.path)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _found(entry: Measured[Losses] | errors.SaeChecksError) -> Measured[Losses]:
    if isinstance(entry, errors.SaeChecksError):
        raise entry
    return entry
