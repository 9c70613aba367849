"""
The studies of a plan on demand: all that are wanted of SAEs with one model and one corpus share a clean pass.

On text it is that of the checks of text, kept for the few sequences that studies look at.
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
from sae_checks.measuring.scoring import Fault, Progress
from sae_checks.measuring.studies.neighbours import Neighbours, neighbouring_hooks
from sae_checks.measuring.studies.propagation import Propagation
from sae_checks.measuring.studies.random_error import RandomError
from sae_checks.measuring.studies.stacked import Stacked, StackedItems
from sae_checks.measuring.studies.study import KeptPasses, Passes, Study, new_passes, run
from sae_checks.model.interface import LanguageModel
from sae_checks.plan.plan import Plan
from sae_checks.provenance import Provenance
from sae_checks.release.release import Sae
from sae_checks.saes.sae import Reconstructs

Wanted = tuple[str, str]
"""The name of a study, and the SAE or stack that it measures."""

_N_BYTES = 4
"""of a number, at most."""
N_BYTES_KEPT = 2**31
"""of a clean pass, at most: twelve times what GPT-2 small takes, a quarter of what Gemma 2 2B would."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyInput:
    """What a study is made from."""

    saes: Sequence[Reconstructs]
    """the SAE that is studied, or those of the stack in order of depth."""
    others: Sequence[Reconstructs]
    """all SAEs of the release that share its model and BOS rule."""
    sequences: Sequences
    n_layers: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKind:
    """How a study is made, and on which corpus."""

    make: Callable[[StudyInput], Study[Any]]  # Any: its losses, which its check knows
    corpus: Literal["text", "lambada"] = "text"


STUDIES: dict[str, StudyKind] = {
    "propagation": StudyKind(make=lambda given: Propagation(given.saes[0], given.others, len(given.sequences.rows))),
    "own_layer": StudyKind(
        make=lambda given: Neighbours(given.saes[0], neighbouring_hooks(given.saes[0], given.n_layers), given.sequences)
    ),
    "random_error": StudyKind(make=lambda given: RandomError(given.saes[0], given.sequences, given.seed)),
    "stacked": StudyKind(make=lambda given: Stacked(given.saes, given.sequences)),
    "stacked_lambada": StudyKind(make=lambda given: StackedItems(given.saes, given.sequences), corpus="lambada"),
}
"""The studies there are, by the name that the table of checks uses."""


class Studies:
    """Measures studies that are wanted together, once."""

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
        self._found: dict[Wanted, Measured[Any] | errors.SaeChecksError] = {}

    def get(self, wanted: Wanted, together: Collection[Wanted]) -> Measured[Any]:
        """
        *wanted*, measured with all of *together* that has not been.

        Raises:
            SaeError: an SAE that it needs cannot be measured.
            MeasuringError: the model or the corpus cannot be used.
        """
        if wanted not in self._found:
            self._measure([each for each in dict.fromkeys([*together, wanted]) if each not in self._found])
        found = self._found[wanted]
        if isinstance(found, errors.SaeChecksError):
            raise found
        return found

    def _measure(self, wanted: list[Wanted]) -> None:
        groups: dict[object, list[tuple[Wanted, SaeInModel]]] = {}
        for each in wanted:
            try:
                sae_in_model = self._first(each)
                corpus = STUDIES[each[0]].corpus
                groups.setdefault((sae_in_model.model, sae_in_model.prepends_bos, corpus), []).append(
                    (each, sae_in_model)
                )
            except (errors.SaeError, errors.MeasuringError) as problem:
                self._found[each] = problem
        for group in groups.values():
            names = [each for each, _ in group]
            try:
                self._measure_group(names, group[0][1])
            except (errors.MeasuringError, RuntimeError) as problem:  # torch's errors, out of memory included
                self._found.update(dict.fromkeys(names, errors.MeasuringError(str(problem))))

    def _measure_group(self, wanted: list[Wanted], one: SaeInModel) -> None:
        kind = STUDIES[wanted[0][0]].corpus
        corpus = self._corpus_of(kind, one)
        sequences = self._few(corpus.sequences, kind)
        sound = self._of_model(one, self._saes.measurable())
        studies: list[Study[Any]] = []
        made: list[Wanted] = []
        for each in wanted:
            try:
                studies.append(self._study(each, sequences, one, sound))
                made.append(each)
            except errors.SaeError as problem:
                self._found[each] = problem
        losses = run(one.model, studies, self._passes(one, studies, sequences))
        facts = replace(
            corpus.facts,
            fingerprint=sequences.fingerprint,
            n_sequences=len(sequences.rows),
            n_scored_tokens=int(sequences.scored.sum()),
            n_context_tokens=int(sequences.tokens.shape[1]),
        )
        for each, found in zip(made, losses, strict=True):
            if isinstance(found, Fault):
                self._found[each] = errors.SaeError(found.problem)
                continue
            sae_in_model = None if each[1] in self._stacks else self._saes.get(each[1])
            of_sae = None if sae_in_model is None else sae_in_model.sae.facts
            provenance = Provenance(sae=of_sae, model=one.model.facts, corpus=facts)
            n = facts.n_sequences
            self._found[each] = Measured(losses=found, provenance=provenance, n=n, n_planned=n)

    def watch(self, wanted: Collection[Wanted], one: SaeInModel, sequences: Sequences) -> KeptPasses | None:
        """
        What keeps the clean pass that *wanted* need of a pass over *sequences*, the text of *one*'s model.

        None: they need none, or it is too large to be kept, and they make one of their own.
        """
        if (one.model, one.prepends_bos) in self._kept:
            return None  # of an earlier group of SAEs
        few, hooks = self._few(sequences, "text"), set[str]()
        later = self._of_model(one, self._saes.candidates())  # not yet loaded: that is for the pass to overlap with
        for each in wanted:
            try:
                first = self._first(each)
                is_here = STUDIES[each[0]].corpus == "text" and each not in self._found
                if is_here and first.model is one.model and first.prepends_bos == one.prepends_bos:
                    hooks |= self._study(each, few, one, later).hooks
            except (errors.SaeError, errors.MeasuringError):
                continue  # said when it is asked for
        # beside the hooks the residual stream of their blocks, at most, and the final one
        n_bytes = few.tokens.size * one.model.facts.d_model * _N_BYTES * (2 * len(hooks) + 1)
        return KeptPasses(few, hooks) if hooks and n_bytes <= N_BYTES_KEPT else None

    def keep(self, kept: KeptPasses, one: SaeInModel) -> None:
        """*kept* is full, of *one*'s model."""
        self._kept[one.model, one.prepends_bos] = kept

    def _passes(self, one: SaeInModel, studies: Sequence[Study[Any]], sequences: Sequences) -> Passes:
        kept = self._kept.pop((one.model, one.prepends_bos), None)  # once: it is large
        if kept is not None and kept.holds(sequences, frozenset().union(*(study.hooks for study in studies))):
            return kept
        return new_passes(
            one.model,
            sequences,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=self._progress_of("studies"),
        )

    def _few(self, sequences: Sequences, corpus: str) -> Sequences:
        options = self._plan.options
        n_positions = int(sequences.tokens.shape[1])
        if corpus == "lambada":
            return sequences.first(options.n_study_items, n_positions)
        known = [s.n_training_context_tokens for s in self._plan.release.saes if isinstance(s, Sae)]
        longest = max((n_positions if context is None else context for context in known), default=n_positions)
        return sequences.first(options.n_study_sequences, min(n_positions, longest))

    def _study(
        self, wanted: Wanted, sequences: Sequences, one: SaeInModel, others: Sequence[Reconstructs]
    ) -> Study[Any]:
        kind, subject = wanted
        stack = self._stacks.get(subject)
        given = StudyInput(
            saes=[self._saes.get(sae_id).sae for sae_id in ((subject,) if stack is None else stack.sae_ids)],
            others=others,
            sequences=sequences,
            n_layers=one.model.facts.n_layers,
            seed=self._plan.options.seed,
        )
        return STUDIES[kind].make(given)

    def _first(self, wanted: Wanted) -> SaeInModel:
        """The SAE of *wanted*, or the first of its stack, all of which must share model and convention."""
        stack = self._stacks.get(wanted[1])
        if stack is None:
            return self._saes.get(wanted[1])
        members = [self._saes.get(sae_id) for sae_id in stack.sae_ids]
        if any(m.model is not members[0].model or m.prepends_bos != members[0].prepends_bos for m in members):
            raise errors.stack_of_several(stack.stack_id)
        return members[0]

    def _of_model(self, one: SaeInModel, of: Sequence[SaeInModel]) -> list[Reconstructs]:
        """Those *of* the release's SAEs that share model and convention with *one*."""
        return [r.sae for r in of if r.model is one.model and r.prepends_bos == one.prepends_bos]
