"""Measure in this process: the model and each corpus once, all SAEs that are wanted together in one clean pass."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import torch

from sae_checks import choices, errors, measure, sae
from sae_checks.corpora import corpus
from sae_checks.corpora.corpus import Corpus
from sae_checks.losses import ChoiceLosses, ItemLosses, TextLosses
from sae_checks.model import hugging_face
from sae_checks.model.interface import LanguageModel
from sae_checks.plan import Plan
from sae_checks.provenance import Provenance
from sae_checks.release import BrokenSae, Sae
from sae_checks.splice import splice

Losses = TypeVar("Losses", TextLosses, ItemLosses, ChoiceLosses)
Progress = Callable[[str, int, int], None]
"""Told (what is measured, tokens done, tokens in all)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured(Generic[Losses]):
    """The losses of one SAE and what they were made of."""

    losses: Losses
    provenance: Provenance


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
        self._corpora: dict[tuple[str, bool], Corpus] = {}
        self._text: dict[str, Measured[TextLosses] | errors.SaeChecksError] = {}
        self._items: dict[str, Measured[ItemLosses] | errors.SaeChecksError] = {}
        self._choices: dict[str, Measured[ChoiceLosses] | errors.SaeChecksError] = {}
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

    def choices(self, sae_id: str, together: Collection[str]) -> Measured[ChoiceLosses]:
        """*sae_id* on the queries of the Children's Book Test; raises like `text`."""
        self._measure("cbt", self._choices, choices.measure_choices, sae_id, together)
        return _found(self._choices[sae_id])

    def spliced_forward(self, sae_id: str) -> Callable[[], None]:
        """What a benchmark times: encode, decode and resume the model, on the first sequences of the plan."""
        model, ready = self.model, self._ready(sae_id)
        first = self._corpus("text", self._prepends_bos(sae_id)).sequences
        n = max(1, self._plan.options.n_batch_tokens // first.tokens.shape[1])
        tokens = torch.from_numpy(first.tokens[:n]).to(model.device)
        replaced = torch.from_numpy(first.replaced[:n]).to(model.device)
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
        measured_on = self._corpus(kind, prepends_bos)
        measured = run(
            self.model,
            [self._ready(s.sae_id) for s in group],
            measured_on.sequences,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=lambda done, total: self._progress(kind, done, total),
        )
        found: dict[str, Measured[Losses] | errors.SaeChecksError] = {}
        for described, losses in zip(group, measured, strict=True):
            if isinstance(losses, measure.Fault):
                found[described.sae_id] = errors.SaeError(losses.problem)
                continue
            made_of = Provenance(sae=sae.facts(described), model=self.model.facts, corpus=measured_on.facts)
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

    def _corpus(self, kind: str, prepends_bos: bool) -> Corpus:
        if (kind, prepends_bos) not in self._corpora:
            made = corpus.make(self._plan, kind, self.model.tokenizer, prepends_bos=prepends_bos)
            self._corpora[kind, prepends_bos] = made
        return self._corpora[kind, prepends_bos]


def _found(entry: Measured[Losses] | errors.SaeChecksError) -> Measured[Losses]:
    if isinstance(entry, errors.SaeChecksError):
        raise entry
    return entry
