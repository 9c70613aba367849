"""Measure in this process: the model and each corpus once, all SAEs that are wanted together in one clean pass."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from sae_checks import choices, errors, measure, sae
from sae_checks.corpora import corpus, golden
from sae_checks.corpora.corpus import Corpus
from sae_checks.executors.ready import Ready, ReadySaes
from sae_checks.executors.studies import Studied, Studies, Wanted
from sae_checks.golden import Golden
from sae_checks.losses import ChoiceLosses, ItemLosses, ItemText, TextLosses
from sae_checks.model.interface import LanguageModel, instead
from sae_checks.plan import Plan
from sae_checks.provenance import Provenance
from sae_checks.scoring import Fault
from sae_checks.splice import splice

N_CHARACTERS_SHOWN = 200
"""of a passage: enough to see what the answer follows from."""

Losses = TypeVar("Losses", TextLosses, ItemLosses, ChoiceLosses)
Progress = Callable[[str, int, int], None]
"""Told (what is measured, tokens done, tokens in all)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured(Generic[Losses]):
    """The losses of one SAE and what they were made of."""

    losses: Losses
    provenance: Provenance
    texts: tuple[ItemText, ...] = ()
    """of the items whose answer the splice lost or won."""


class LocalExecutor:
    """
    Measures SAEs of a plan on demand.

    Asking for one SAE measures every SAE of *together* (a group that holds it) that is not measured yet, so that they
    share the clean pass. An error belongs to what it concerns and is raised again each time that is asked for.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._saes = ReadySaes(plan)
        self._corpora: dict[tuple[str, bool, str], Corpus] = {}
        self._text: dict[str, Measured[TextLosses] | errors.SaeChecksError] = {}
        self._more_text: dict[str, Measured[TextLosses] | errors.SaeChecksError] = {}
        self._items: dict[str, Measured[ItemLosses] | errors.SaeChecksError] = {}
        self._choices: dict[str, Measured[ChoiceLosses] | errors.SaeChecksError] = {}
        self._studies = Studies(plan, self._saes, self._corpus, progress)

    def text(self, sae_id: str, together: Collection[str]) -> Measured[TextLosses]:
        """
        *sae_id* on the text corpus.

        Raises:
            SaeError: this SAE cannot be measured.
            MeasuringError: the model or the corpus cannot be used.
        """
        self._measure("text", self._text, measure.measure_text, sae_id, together)
        return _found(self._text[sae_id])

    def more_text(self, sae_id: str) -> Measured[TextLosses]:
        """*sae_id* on the text and what follows it in its order, up to `--sae-max-sequences`; raises like `text`."""
        self._measure("more text", self._more_text, measure.measure_text, sae_id, ())
        return _found(self._more_text[sae_id])

    def items(self, sae_id: str, together: Collection[str]) -> Measured[ItemLosses]:
        """*sae_id* on the Lambada passages; raises like `text`."""
        self._measure("lambada", self._items, measure.measure_items, sae_id, together)
        return _found(self._items[sae_id])

    def choices(self, sae_id: str, together: Collection[str]) -> Measured[ChoiceLosses]:
        """*sae_id* on the queries of the Children's Book Test; raises like `text`."""
        self._measure("cbt", self._choices, choices.measure_choices, sae_id, together)
        return _found(self._choices[sae_id])

    def golden(self, sae_id: str, known: Golden) -> Measured[ItemLosses]:
        """*sae_id* on its golden prompts, by their own rule for BOS and special tokens; raises like `text`."""
        ready = self._saes.get(sae_id)
        model, n_context = ready.model, ready.model.facts.n_context_tokens
        bos = corpus.bos_of(model.tokenizer, model.facts.source) if known.prepend_bos else None
        sequences = golden.tokenise(known, model.tokenizer, bos=bos, n_context_tokens=n_context)
        n_batch = self._plan.options.n_batch_tokens
        try:  # without progress: it is a moment
            (losses,) = measure.measure_items(model, [ready.sae], sequences, n_batch_tokens=n_batch, progress=_silent)
        except RuntimeError as problem:
            raise errors.MeasuringError(str(problem)) from None
        if isinstance(losses, Fault):
            raise errors.SaeError(losses.problem)
        facts = golden.facts(known, sequences, n_context_tokens=n_context)
        made_of = Provenance(sae=sae.facts(ready.described, ready.sae), model=model.facts, corpus=facts)
        return Measured(losses=losses, provenance=made_of)

    def study(self, wanted: Wanted, together: Collection[Wanted]) -> Studied:
        """A study of one SAE or stack, on few sequences of the same corpora; raises like `text`."""
        return self._studies.get(wanted, together)

    def copies(self, sae_id: str) -> tuple[str, ...]:
        """
        The other SAEs of the release whose weights are the same, number by number.

        Raises:
            SaeError: this SAE cannot be loaded.
            MeasuringError: its model cannot be.
        """
        own = self._saes.get(sae_id).sae.fingerprint
        return tuple(r.sae.sae_id for r in self._saes.sound() if r.sae.sae_id != sae_id and r.sae.fingerprint == own)

    def spliced_forward(self, sae_id: str) -> Callable[[], None]:
        """What a benchmark times: encode, decode and resume the model, on the first sequences of the plan."""
        ready = self._saes.get(sae_id)
        one, model = ready.sae, ready.model
        first = self._corpus("text", ready).sequences
        n = max(1, self._plan.options.n_batch_tokens // first.tokens.shape[1])
        tokens = torch.from_numpy(first.tokens[:n]).to(model.device)
        replaced = torch.from_numpy(first.replaced[:n]).to(model.device)
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
        run: Callable[..., tuple[Losses | Fault, ...]],
        sae_id: str,
        together: Collection[str],
    ) -> None:
        if sae_id in into:
            return
        groups: dict[tuple[LanguageModel, bool], list[Ready]] = {}
        for each in dict.fromkeys([*together, sae_id]):
            if each not in into:
                try:
                    ready = self._saes.get(each)
                    groups.setdefault((ready.model, ready.prepends_bos), []).append(ready)
                except (errors.SaeError, errors.MeasuringError) as problem:
                    into[each] = problem
        for group in groups.values():
            try:
                into.update(self._measure_group(kind, run, group))
            except (errors.MeasuringError, RuntimeError) as problem:  # torch's errors, out of memory included
                into.update(dict.fromkeys((r.sae.sae_id for r in group), errors.MeasuringError(str(problem))))

    def _measure_group(
        self, kind: str, run: Callable[..., tuple[Losses | Fault, ...]], group: list[Ready]
    ) -> dict[str, Measured[Losses] | errors.SaeChecksError]:  # a dict: rows of one of this class's own
        """*group*, whose SAEs share model and corpus."""
        model, measured_on = group[0].model, self._corpus(kind, group[0])
        measured = run(
            model,
            [ready.sae for ready in group],
            measured_on.sequences,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=lambda done, total: self._progress(kind, done, total),
        )
        found: dict[str, Measured[Losses] | errors.SaeChecksError] = {}
        for ready, losses in zip(group, measured, strict=True):
            if isinstance(losses, Fault):
                found[ready.sae.sae_id] = errors.SaeError(losses.problem)
                continue
            facts = sae.facts(ready.described, ready.sae)
            made_of = Provenance(sae=facts, model=model.facts, corpus=measured_on.facts)
            texts = _texts_of_flips(losses, measured_on.texts) if isinstance(losses, ItemLosses) else ()
            found[ready.sae.sae_id] = Measured(losses=losses, provenance=made_of, texts=texts)
        return found

    def _corpus(self, kind: str, ready: Ready) -> Corpus:
        """What *ready* is measured on: a corpus depends on its model's tokenizer and on its convention."""
        of = kind.removeprefix("more ")
        key = (of, ready.prepends_bos, ready.model.facts.source)
        if key not in self._corpora:
            place = self._plan.model_of(ready.described)
            tokenizer = ready.model.tokenizer
            self._corpora[key] = corpus.make(self._plan, place, of, tokenizer, prepends_bos=ready.prepends_bos)
        found = self._corpora[key]
        return corpus.beginning(found, self._plan.options.n_sequences) if kind == "text" else found


def _silent(_n_done: int, _n_all: int) -> None:
    """No progress is told."""


def _texts_of_flips(losses: ItemLosses, texts: tuple[str, ...]) -> tuple[ItemText, ...]:
    """The passages whose answer is right one way and wrong the other."""
    found = []
    for item in losses.items[losses.clean_correct != losses.spliced_correct].tolist():
        passage, _, answer = texts[item].rpartition(" ")
        found.append(ItemText(item=item, passage_end=passage[-N_CHARACTERS_SHOWN:], answer=answer))
    return tuple(found)


def _found(entry: Measured[Losses] | errors.SaeChecksError) -> Measured[Losses]:
    if isinstance(entry, errors.SaeChecksError):
        raise entry
    return entry
