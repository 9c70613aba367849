"""
Measures the studies of a plan on demand. Studies on one model and one corpus share a clean pass.

Studies on text take the clean pass of the text checks, which is kept for the first few sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sae_checks import errors
from sae_checks.corpora.corpus import Corpus
from sae_checks.corpora.sequences import Sequences
from sae_checks.measuring.measured import Measured
from sae_checks.measuring.saes_in_models import SaeInModel, SaesInModels
from sae_checks.measuring.scoring import Batch, Fault, Progress
from sae_checks.measuring.studies.neighbours import Neighbours, neighbouring_hooks, places_of_block
from sae_checks.measuring.studies.propagation import Propagation
from sae_checks.measuring.studies.random_error import RandomError
from sae_checks.measuring.studies.stacked import Stacked, StackedItems
from sae_checks.measuring.studies.study import KeptPasses, Passes, Study, new_passes, run
from sae_checks.model.interface import LanguageModel
from sae_checks.plan.plan import Plan
from sae_checks.provenance import Provenance
from sae_checks.release.release import Sae
from sae_checks.saes.lazy_weights import LazySae
from sae_checks.saes.sae import Reconstructs

StudyKey = tuple[str, str]
"""name of a study, and id of the SAE or stack that it measures."""

_N_BYTES_PER_NUMBER = 4
"""of an activation, at most."""
N_BYTES_KEPT = 2**31
"""largest clean pass that is kept: GPT-2 small takes a twelfth of it, Gemma 2 2B would take four times as much."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyInput:
    """The arguments from which a study is made."""

    saes: Sequence[Reconstructs]
    """the SAE that the study measures, or the SAEs of the stack in order of depth."""
    others: Sequence[Reconstructs]
    """all SAEs of the release with the same model and BOS rule."""
    sequences: Sequences
    model: LanguageModel
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKind:
    """A kind of study: how it is made, and the corpus that it measures on."""

    make: Callable[[StudyInput], Study[Any]]  # Any: the losses, which differ by study
    corpus: Literal["text", "lambada"] = "text"


STUDIES: dict[str, StudyKind] = {
    "propagation": StudyKind(make=lambda given: Propagation(given.saes[0], given.others, len(given.sequences.rows))),
    "own_layer": StudyKind(
        make=lambda given: Neighbours(
            given.saes[0],
            neighbouring_hooks(given.saes[0], given.model.facts.n_layers),
            given.sequences,
            places_of_block(given.saes[0], given.model),
        )
    ),
    "random_error": StudyKind(make=lambda given: RandomError(given.saes[0], given.sequences, given.seed)),
    "stacked": StudyKind(make=lambda given: Stacked(given.saes, given.sequences)),
    "stacked_lambada": StudyKind(make=lambda given: StackedItems(given.saes, given.sequences), corpus="lambada"),
}
"""All kinds of study, by the name that the table of checks uses."""


class Studies:
    """Measures each study once, together with the others on the same model and corpus."""

    def __init__(
        self,
        plan: Plan,
        saes: SaesInModels,
        corpus_of: Callable[[str, SaeInModel], Corpus],
        progress_of: Callable[[str], Progress],
    ) -> None:
        self._plan = plan
        self._saes = saes
        self._corpus_of = corpus_of
        self._progress_of = progress_of
        self._stacks = {stack.stack_id: stack for stack in plan.stacks}
        self._kept: dict[tuple[LanguageModel, bool], KeptPasses] = {}
        self._measured: dict[StudyKey, Measured[Any] | errors.SaeChecksError] = {}

    def get(self, key: StudyKey, together: Collection[StudyKey]) -> Measured[Any]:
        """
        Measure the study *key*, with all of *together* that is not measured yet.

        Raises:
            SaeError: an SAE that it needs cannot be measured.
            MeasuringError: the model or the corpus cannot be used.
        """
        if key not in self._measured:
            self._measure([each for each in dict.fromkeys([*together, key]) if each not in self._measured])
        found = self._measured[key]
        if isinstance(found, errors.SaeChecksError):
            raise found
        return found

    def _measure(self, keys: list[StudyKey]) -> None:
        """Measure the studies *keys* in groups that share model, BOS rule and corpus."""
        groups: dict[object, list[tuple[StudyKey, SaeInModel]]] = {}
        for key in keys:
            try:
                first = self._first_sae(key)
                corpus = STUDIES[key[0]].corpus
                groups.setdefault((first.model, first.prepends_bos, corpus), []).append((key, first))
            except (errors.SaeError, errors.MeasuringError) as problem:
                self._measured[key] = problem
        for group in groups.values():
            of_group = [key for key, _ in group]
            try:
                self._measure_group(of_group, group[0][1])
            except (errors.MeasuringError, RuntimeError) as problem:  # WHY: torch raises it, out of memory included
                self._measured.update(dict.fromkeys(of_group, errors.MeasuringError(str(problem))))

    def _measure_group(self, keys: list[StudyKey], one: SaeInModel) -> None:
        """Measure *keys*, studies of one corpus on the model of *one*, in shared passes."""
        kind = STUDIES[keys[0][0]].corpus
        corpus = self._corpus_of(kind, one)
        sequences = self._study_sequences(corpus.sequences, kind)
        others = self.same_model(one, self._saes.measurable())
        studies: dict[StudyKey, Study[Any]] = {}
        for key in keys:
            try:
                studies[key] = self._study(key, sequences, one, others)
            except errors.SaeError as problem:
                self._measured[key] = problem
        made = list(studies.values())
        losses = run(one.model, made, self._passes(one, made, sequences), self._progress(made, sequences))
        facts = replace(
            corpus.facts,
            fingerprint=sequences.fingerprint,
            n_sequences=len(sequences.rows),
            n_scored_tokens=int(sequences.scored.sum()),
            n_context_tokens=int(sequences.tokens.shape[1]),
            warnings=(),  # the text of the whole plan has them
        )
        for (key, _), found in zip(studies.items(), losses, strict=True):
            if isinstance(found, Fault):
                self._measured[key] = errors.SaeError(found.problem)
                continue
            sae_facts = None if key[1] in self._stacks else self._saes.get(key[1]).sae.facts
            provenance = Provenance(sae=sae_facts, model=one.model.facts, corpus=facts)
            n = facts.n_sequences
            self._measured[key] = Measured(losses=found, provenance=provenance, n=n, n_planned=n)

    def same_model(self, one: SaeInModel, saes: Sequence[SaeInModel]) -> list[LazySae]:
        """The SAEs among *saes* that share model and BOS rule with *one*."""
        return [each.sae for each in saes if each.model is one.model and each.prepends_bos == one.prepends_bos]

    def passes_to_keep(self, keys: Collection[StudyKey], one: SaeInModel, sequences: Sequences) -> KeptPasses | None:
        """
        Make what keeps the clean pass over the first of *sequences* for the studies *keys*.

        *sequences* are the text of the model of *one*. None: no study needs that pass, an earlier group of SAEs has
        filled it, or it is too large to keep. Studies then make passes of their own.
        """
        if (one.model, one.prepends_bos) in self._kept:
            return None
        few, hooks = self._study_sequences(sequences, "text"), set[str]()
        others = self.same_model(one, self._saes.candidates())  # WHY candidates: the pass overlaps with their loading
        for key in keys:
            try:
                first = self._first_sae(key)
                is_needed = STUDIES[key[0]].corpus == "text" and key not in self._measured
                if is_needed and first.model is one.model and first.prepends_bos == one.prepends_bos:
                    hooks |= self._study(key, few, one, others).hooks
            except (errors.SaeError, errors.MeasuringError):
                continue  # WHY: `get` raises it
        # WHY this size: each hook, at most the residual stream of its block, and the final residual stream
        n_bytes = few.tokens.size * one.model.facts.d_model * _N_BYTES_PER_NUMBER * (2 * len(hooks) + 1)
        return KeptPasses(few, hooks) if hooks and n_bytes <= N_BYTES_KEPT else None

    def keep(self, kept: KeptPasses, one: SaeInModel) -> None:
        """Keep the passes *kept*, which are complete, for the studies on the model of *one*."""
        self._kept[one.model, one.prepends_bos] = kept

    def _passes(self, one: SaeInModel, studies: Sequence[Study[Any]], sequences: Sequences) -> Passes:
        """The clean passes for *studies*: the kept ones if they fit, else new ones."""
        kept = self._kept.pop((one.model, one.prepends_bos), None)  # WHY pop: it is large
        if kept is not None and kept.holds(sequences, frozenset().union(*(study.hooks for study in studies))):
            return kept
        return new_passes(one.model, sequences, n_batch_tokens=self._plan.options.n_batch_tokens)

    def _progress(self, studies: Sequence[Study[Any]], sequences: Sequences) -> Callable[[Batch], None]:
        """What shows the progress of *studies*; it counts a token once for each study and epoch."""
        show, n_done = self._progress_of("studies"), 0
        n_all = sum(study.n_epochs for study in studies) * int(sequences.lengths.sum())

        def add(batch: Batch) -> None:
            nonlocal n_done
            n_done += int(sequences.lengths[batch.sequences].sum())
            show(n_done, n_all)

        show(0, n_all)
        return add

    def _study_sequences(self, sequences: Sequences, corpus: str) -> Sequences:
        """The sequences of a corpus that studies measure; text is cut to the longest training context."""
        options = self._plan.options
        n_positions = int(sequences.tokens.shape[1])
        if corpus == "lambada":
            return sequences.first(options.n_study_items, n_positions)
        known = [s.n_training_context_tokens for s in self._plan.release.saes if isinstance(s, Sae)]
        longest = max((n_positions if context is None else context for context in known), default=n_positions)
        return sequences.first(options.n_study_sequences, min(n_positions, longest))

    def _study(
        self, key: StudyKey, sequences: Sequences, one: SaeInModel, others: Sequence[Reconstructs]
    ) -> Study[Any]:
        """Make the study *key* on *sequences*."""
        kind, subject = key
        stack = self._stacks.get(subject)
        given = StudyInput(
            saes=[self._saes.get(sae_id).sae for sae_id in ((subject,) if stack is None else stack.sae_ids)],
            others=others,
            sequences=sequences,
            model=one.model,
            seed=self._plan.options.seed,
        )
        return STUDIES[kind].make(given)

    def _first_sae(self, key: StudyKey) -> SaeInModel:
        """
        The SAE of a study, or the first SAE of its stack.

        Raises:
            SaeError: an SAE cannot be used, or the SAEs of the stack differ in model or BOS rule.
            MeasuringError: the model cannot be used.
        """
        stack = self._stacks.get(key[1])
        if stack is None:
            return self._saes.get(key[1])
        members = [self._saes.get(sae_id) for sae_id in stack.sae_ids]
        if any(m.model is not members[0].model or m.prepends_bos != members[0].prepends_bos for m in members):
            raise errors.stack_of_several(stack.stack_id)
        return members[0]
