"""
Measures SAEs in this process. Model and corpora are loaded once, and all SAEs of a pass share one clean pass.

SAEs whose weights do not fit into memory together are measured in groups, with a clean pass for each group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from sae_checks import errors
from sae_checks.corpora import cbt, corpus, golden
from sae_checks.corpora.corpus import Corpus
from sae_checks.corpora.sequences import Sequences, token_texts
from sae_checks.diagnosis import Diagnosis, not_diagnosed
from sae_checks.explanation import Explanation
from sae_checks.losses import ChoiceLosses, ItemLosses, TextLosses
from sae_checks.measuring import corpus_pass, diagnosing, explaining
from sae_checks.measuring.choices import ChoiceSums
from sae_checks.measuring.clean_text import CleanText
from sae_checks.measuring.local_studies import Studies, StudyKey
from sae_checks.measuring.measured import (
    Measured,
    StoppingRule,
    changed_answer_texts,
    changed_queries,
    item_indices,
    n_items,
)
from sae_checks.measuring.saes_in_models import SaeInModel, SaesInModels
from sae_checks.measuring.scoring import Fault, Progress, round_ends
from sae_checks.measuring.sequence_sums import AnswerSums, ItemSums, Sums
from sae_checks.model.interface import LanguageModel, replace_with
from sae_checks.plan.golden_prompts import Golden
from sae_checks.plan.plan import Plan
from sae_checks.provenance import Provenance
from sae_checks.release.converters import quiet
from sae_checks.saes.splice import splice

N_PER_ROUND = {"text": 16, "lambada": 64, "cbt": 16}
"""
Sequences, passages or queries per round of a pass; decided SAEs leave after a round.

A round of text has two looks, because rounds of one look would make small batches.
"""

_NOUNS = {"text": "the text", "lambada": "Lambada", "cbt": "the Children's Book Test"}

Found = Measured[Any] | errors.SaeChecksError  # Any: TextLosses, ItemLosses or ChoiceLosses


def silent(_kind: str) -> Progress:
    """Show no progress of any pass."""
    return lambda _n_done, _n_all: None


def _needs_more(rule: StoppingRule | None, sae_id: str, measured: Measured[Any]) -> bool:
    """Whether an SAE stays in the pass; no SAE does at the end of the plan. Without a rule all of it is measured."""
    if measured.n == measured.n_planned:
        return False
    return rule is None or rule.needs_more(sae_id, measured)


class LocalExecutor:
    """
    Measures SAEs of a plan on demand.

    Measuring one SAE also measures the SAEs that are named with it, so that they share the clean pass. An error
    concerns one SAE, model or corpus; it is kept, and raised each time a measurement needs that.
    """

    def __init__(
        self,
        plan: Plan,
        progress_of: Callable[[str], Progress] = silent,
        announce: Callable[[str], None] = lambda _step: None,
        on_corpus: Callable[[Corpus], None] = lambda _: None,
    ) -> None:
        """
        Make the executor; nothing is loaded yet.

        Args:
            plan: names SAEs, models and texts.
            progress_of: makes what shows progress, for a kind of pass, "studies", "explanation" or "diagnosis".
            announce: is called with a step that may take long before anything is measured: `loading gpt2`.
            on_corpus: is called with each corpus once it is tokenised, before a pass over it.
        """
        # WHY: SAEs and losses are in float32 by contract, so products use no TF32 or bfloat16
        torch.set_float32_matmul_precision("highest")
        self._plan = plan
        self._progress_of = progress_of
        self._announce = announce
        self._on_corpus = on_corpus
        self._saes = SaesInModels(plan, announce)
        self._corpora: dict[tuple[str, bool, str], Corpus] = {}
        self._clean_texts: dict[tuple[str, bool, str], CleanText] = {}
        self._found: dict[str, dict[str, Found]] = {kind: {} for kind in N_PER_ROUND}
        self._studies = Studies(plan, self._saes, self._corpus, progress_of)

    def measure(
        self,
        kind: str,
        sae_id: str,
        together: Collection[str] = (),
        rule: StoppingRule | None = None,
        studies: Collection[StudyKey] = (),
    ) -> Measured[Any]:
        """
        Measure an SAE by one kind of pass, with all of *together* that is not measured yet.

        Args:
            kind: "text", "lambada" or "cbt".
            sae_id: of the release.
            together: SAEs that share the clean pass.
            rule: decides after each round which SAEs are measured further; None: the whole plan is measured.
            studies: studies that need the clean pass over the first sequences of text, which is kept for them.

        Returns:
            TextLosses, ItemLosses or ChoiceLosses, by the kind; kept ones if *rule* needs no more.

        Raises:
            SaeError: this SAE cannot be measured.
            MeasuringError: the model or the corpus cannot be used.
        """
        known = self._found[kind]
        found = known.get(sae_id)
        if isinstance(found, Measured) and _needs_more(rule, sae_id, found):  # WHY: it left before this check was open
            del known[sae_id]
        if sae_id not in known:
            sae_ids = [each for each in dict.fromkeys([*together, sae_id]) if each not in known]
            self._measure(kind, sae_ids, rule, studies)
        found = known[sae_id]
        if isinstance(found, errors.SaeChecksError):
            raise found
        return found

    def golden(self, sae_id: str, prompts: Golden) -> Measured[ItemLosses]:
        """Measure an SAE on its golden *prompts*, by their own rule for BOS and special tokens; raises as `measure`."""
        sae_in_model = self._saes.get(sae_id)
        model, n_context = sae_in_model.model, sae_in_model.model.facts.n_context_tokens
        bos = corpus.bos_token(model.tokenizer, model.facts.source) if prompts.prepend_bos else None
        sequences = golden.tokenise(prompts, model.tokenizer, bos=bos, n_context_tokens=n_context)
        n_batch = self._plan.options.n_batch_tokens
        try:
            (losses,) = corpus_pass.measure_items(
                model, [sae_in_model.sae], sequences, n_batch_tokens=n_batch, progress=lambda *_: None
            )
        except RuntimeError as problem:
            raise errors.MeasuringError(str(problem)) from None
        if isinstance(losses, Fault):
            raise errors.SaeError(losses.problem)
        facts = golden.facts(prompts, sequences, n_context_tokens=n_context)
        provenance = Provenance(sae=sae_in_model.sae.facts, model=model.facts, corpus=facts)
        n = len(losses.items)
        return Measured(
            losses=losses,
            provenance=provenance,
            n=n,
            n_planned=n,
            tokens_of=lambda i: token_texts(sequences, i, model.tokenizer),
        )

    def study(self, key: StudyKey, together: Collection[StudyKey] = ()) -> Measured[Any]:
        """Measure one study of an SAE or stack, on the first sequences of its corpus; raises as `measure`."""
        return self._studies.get(key, together)

    def copies(self, sae_id: str) -> Measured[tuple[str, ...]]:
        """
        Find the other SAEs of the release that have the same weights, but for rounding and the order of latents.

        Raises:
            SaeError: this SAE cannot be loaded.
            MeasuringError: its model cannot be loaded.
        """
        own = self._saes.get(sae_id).sae
        others = [sae_in_model.sae for sae_in_model in self._saes.measurable() if sae_in_model.sae.sae_id != sae_id]
        found = tuple(other.sae_id for other in others if own.is_copy_of(other))
        return Measured(losses=found, provenance=None, n=0, n_planned=0)

    def explain(self, sae_id: str, text: Measured[TextLosses], documents: Sequence[int]) -> Explanation:
        """Explain the loss of an SAE in the first of *documents*, indices in the corpus; raises as `measure`."""
        sae_in_model = self._saes.get(sae_id)
        return explaining.explanation(
            sae_in_model.model,
            sae_in_model.sae.loaded(),
            self._corpus("text", sae_in_model).sequences,
            text.losses,
            documents,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=self._progress_of("explanation"),
        )

    def diagnose(self, sae_id: str, *, compares_weights: bool = False) -> Diagnosis:
        """
        Measure what is wrong with an SAE. If that is impossible, the diagnosis says why; verdicts do not need it.

        With *compares_weights* weights are compared with those of the whole release.
        """
        try:
            copies = self.copies(sae_id).losses if compares_weights else None
            sae_in_model = self._saes.get(sae_id)
            return diagnosing.diagnosis(
                sae_in_model.model,
                sae_in_model.sae.loaded(),
                self._studies.same_model(sae_in_model, self._saes.candidates()),
                self._corpus("text", sae_in_model).sequences,
                copies=copies,
                n_batch_tokens=self._plan.options.n_batch_tokens,
                progress=self._progress_of("diagnosis"),
            )
        except Exception as problem:  # noqa: BLE001 -- no error here, not even a bug, may cost a verdict
            return not_diagnosed(str(problem).partition("\n")[0] or type(problem).__name__)

    def spliced_forward(self, sae_id: str) -> Callable[[], None]:
        """Return what a benchmark times: a function that splices an SAE and resumes the model, on the first batch."""
        sae_in_model = self._saes.get(sae_id)
        one, model = sae_in_model.sae.loaded(), sae_in_model.model
        first = self._corpus("text", sae_in_model).sequences
        n = max(1, self._plan.options.n_batch_tokens // first.tokens.shape[1])
        tokens = torch.from_numpy(first.tokens[:n]).to(model.device)
        replaced = torch.from_numpy(first.replaced[:n]).to(model.device)
        clean = model.clean(tokens, {one.hook, one.hook_out})

        def forward() -> None:
            made = splice(clean.activation(one.hook), clean.activation(one.hook_out), replaced, one)
            model.resume(clean, {one.hook_out: replace_with(made.activation)})
            if model.device.type == "cuda":
                torch.cuda.synchronize()  # WHY: the call returns before its kernels end

        return forward

    def _measure(
        self, kind: str, sae_ids: Collection[str], rule: StoppingRule | None, studies: Collection[StudyKey]
    ) -> None:
        """Measure *sae_ids* in groups that share model and corpus and fit into memory."""
        known = self._found[kind]
        groups: dict[tuple[LanguageModel, bool], list[SaeInModel]] = {}
        for sae_id in sae_ids:
            try:
                sae_in_model = self._saes.get(sae_id)
                groups.setdefault((sae_in_model.model, sae_in_model.prepends_bos), []).append(sae_in_model)
            except (errors.SaeError, errors.MeasuringError) as problem:
                known[sae_id] = problem
        for group in (fitting for same_corpus in groups.values() for fitting in self._saes.groups(same_corpus)):
            cache = self._saes.weight_cache(group[0].model.device)
            with quiet():  # WHY here: the filters of warnings are the process's, and another thread loads
                try:
                    cache.start_loading([sae_in_model.sae for sae_in_model in group])
                    self._measure_group(kind, group, rule, studies)
                except (errors.MeasuringError, RuntimeError) as problem:  # WHY: torch raises it, out of memory included
                    unmeasured = errors.MeasuringError(str(problem))
                    known.update(dict.fromkeys((each.sae.sae_id for each in group), unmeasured))
                finally:
                    cache.finish_loading()

    def _measure_group(
        self, kind: str, group: list[SaeInModel], rule: StoppingRule | None, studies: Collection[StudyKey]
    ) -> None:
        """Measure *group* in one pass; after each round the SAEs that are decided by *rule* leave it."""
        one, known = group[0], self._found[kind]
        planned = self._corpus(kind, one)
        watch = self._studies.passes_to_keep(studies, one, planned.sequences)
        ends = round_ends(planned.sequences.rows, N_PER_ROUND[kind], () if watch is None else (watch.n_sequences,))
        for sums in self._rounds(kind, group, planned, ends, watch):
            planned = self._warned(kind, one)
            for sae_in_model, of_sae in zip(group, sums, strict=True):
                if not of_sae.is_active:
                    continue
                found = self._measured(sae_in_model, of_sae.losses(), planned)
                known[sae_in_model.sae.sae_id] = found
                if isinstance(found, Measured):
                    of_sae.is_decided = not _needs_more(rule, sae_in_model.sae.sae_id, found)
        for sae_in_model, of_sae in zip(group, sums, strict=True):
            if of_sae.fault is not None:
                known[sae_in_model.sae.sae_id] = errors.SaeError(of_sae.fault)
        if watch is not None:
            self._studies.keep(watch, one)

    def _rounds(
        self, kind: str, group: list[SaeInModel], planned: Corpus, ends: Sequence[int], watch: corpus_pass.Watch | None
    ) -> Iterator[Sequence[Sums[Any]]]:
        """The pass of *kind* over *planned*: an iterator that gives the sums of all SAEs after each round."""
        model, saes, sequences = group[0].model, [sae_in_model.sae for sae_in_model in group], planned.sequences
        n_batch, progress = self._plan.options.n_batch_tokens, self._progress_of(kind)
        if kind == "text":
            return corpus_pass.text_rounds(
                model,
                saes,
                sequences,
                n_batch_tokens=n_batch,
                progress=progress,
                ends=ends,
                watch=watch,
                clean_text=self._clean_texts.setdefault(self._corpus_key(kind, group[0]), CleanText()),
                ablates=self._plan.measures_ablation,
            )
        sums_of: Callable[[Sequences], AnswerSums[Any]] = ChoiceSums if kind == "cbt" else ItemSums
        return corpus_pass.item_rounds(
            model, saes, sequences, n_batch_tokens=n_batch, progress=progress, ends=ends, sums_of=sums_of
        )

    def _measured(
        self, sae_in_model: SaeInModel, losses: TextLosses | ItemLosses | ChoiceLosses | Fault, planned: Corpus
    ) -> Found:
        """The losses of an SAE so far, with their provenance and the texts that the report shows; or an error."""
        if isinstance(losses, Fault):
            return errors.SaeError(losses.problem)
        tokenizer = sae_in_model.model.tokenizer
        return Measured(
            losses=losses,
            provenance=Provenance(sae=sae_in_model.sae.facts, model=sae_in_model.model.facts, corpus=planned.facts),
            n=len(item_indices(losses)),
            n_planned=n_items(planned),
            tokens_of=lambda i: token_texts(planned.sequences, i, tokenizer),
            texts=changed_answer_texts(losses, planned.texts) if isinstance(losses, ItemLosses) else (),
            choices=cbt.choice_texts(planned.queries, changed_queries(losses))
            if isinstance(losses, ChoiceLosses)
            else (),
        )

    def _warned(self, kind: str, one: SaeInModel) -> Corpus:
        """The corpus of an SAE, in whose warnings are those of the clean loss if it is text."""
        known, key = self._corpus(kind, one), self._corpus_key(kind, one)
        clean = self._clean_texts.get(key)
        if clean is None or clean.is_read or not clean.n_tokens:
            return known
        clean.is_read = True
        warnings = (*known.facts.warnings, *clean.warnings(one.model.n_logits))
        self._corpora[key] = replace(known, facts=replace(known.facts, warnings=warnings))
        return self._corpora[key]

    def _corpus_key(self, kind: str, sae_in_model: SaeInModel) -> tuple[str, bool, str]:
        return kind, sae_in_model.prepends_bos, sae_in_model.model.facts.source

    def _corpus(self, kind: str, sae_in_model: SaeInModel) -> Corpus:
        """The corpus *kind* of an SAE, which depends on the tokenizer of its model and on its BOS rule."""
        key = self._corpus_key(kind, sae_in_model)
        if key not in self._corpora:
            planned = self._plan.model_of(sae_in_model.described)
            tokenizer = sae_in_model.model.tokenizer
            self._announce(f"reading {_NOUNS[kind]}")
            self._corpora[key] = corpus.make(
                self._plan, planned, kind, tokenizer, prepends_bos=sae_in_model.prepends_bos
            )
            self._on_corpus(self._corpora[key])
        return self._corpora[key]
