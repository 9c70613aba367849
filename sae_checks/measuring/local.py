"""
Measures SAEs in this process: the model and each corpus once, all SAEs of a pass together in one clean pass.

Where their weights do not fit into memory together, there is a clean pass for each group that does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from sae_checks import errors
from sae_checks.corpora import cbt, corpus, golden
from sae_checks.corpora.corpus import Corpus
from sae_checks.corpora.sequences import Sequences, token_texts
from sae_checks.explanation import Explanation
from sae_checks.losses import ChoiceLosses, ItemLosses, TextLosses
from sae_checks.measuring import corpus_pass, explaining
from sae_checks.measuring.choices import ChoiceSums
from sae_checks.measuring.local_studies import Studies, Wanted
from sae_checks.measuring.measured import Measured, StoppingRule, flipped, n_rows, rows, texts_of_flips
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
"""Sequences, passages or queries per round, after which decided SAEs leave. Two looks of text: rounds of one would be
small batches."""

Found = Measured[Any] | errors.SaeChecksError  # Any: TextLosses, ItemLosses or ChoiceLosses, by the pass


def silent(_kind: str) -> Progress:
    """Show no progress."""
    return lambda _n_done, _n_all: None


def _needs_more(rule: StoppingRule | None, sae_id: str, measured: Measured[Any]) -> bool:
    """Whether an SAE stays in the pass; at the end of the plan nobody does."""
    if measured.n == measured.n_planned:
        return False
    return rule is None or rule.needs_more(sae_id, measured)


class LocalExecutor:
    """
    Measures SAEs of a plan on demand.

    Asking for one SAE measures every SAE that is named with it and is not measured yet, so that they share the clean
    pass. An error belongs to the SAE, model or corpus that it concerns, and is raised each time that is asked for.
    """

    def __init__(self, plan: Plan, progress_of: Callable[[str], Progress] = silent) -> None:
        """*progress_of* gives what shows the progress of a pass ("text"), of "studies" or of an "explanation"."""
        # WHY: SAEs and losses are in float32 by contract: no TF32 or bfloat16 in products, whatever was set before
        torch.set_float32_matmul_precision("highest")
        self._plan = plan
        self._progress_of = progress_of
        self._saes = SaesInModels(plan)
        self._corpora: dict[tuple[str, bool, str], Corpus] = {}
        self._found: dict[str, dict[str, Found]] = {kind: {} for kind in N_PER_ROUND}
        self._studies = Studies(plan, self._saes, self._corpus, progress_of)

    def measure(
        self,
        kind: str,
        sae_id: str,
        together: Collection[str] = (),
        rule: StoppingRule | None = None,
        studied: Collection[Wanted] = (),
    ) -> Measured[Any]:
        """
        Measure an SAE by one kind of pass, with all of *together* that is not measured yet.

        Args:
            kind: "text", "lambada" or "cbt".
            sae_id: of the release.
            together: SAEs that share the clean pass.
            rule: decides after each round who is measured further; None: all of the plan is measured.
            studied: studies that will use the clean pass of the first sequences of text; it is kept for them.

        Returns:
            TextLosses, ItemLosses or ChoiceLosses, by the kind. What is known already, where the rule needs no more.

        Raises:
            SaeError: this SAE cannot be measured.
            MeasuringError: the model or the corpus cannot be used.
        """
        into = self._found[kind]
        found = into.get(sae_id)
        if isinstance(found, Measured) and _needs_more(rule, sae_id, found):  # it left before this check was asked
            del into[sae_id]
        if sae_id not in into:
            self._measure(
                kind, [each for each in dict.fromkeys([*together, sae_id]) if each not in into], rule, studied
            )
        found = into[sae_id]
        if isinstance(found, errors.SaeChecksError):
            raise found
        return found

    def golden(self, sae_id: str, known: Golden) -> Measured[ItemLosses]:
        """Measure an SAE on its golden prompts, by their own rule for BOS and special tokens; raises as `measure`."""
        sae_in_model = self._saes.get(sae_id)
        model, n_context = sae_in_model.model, sae_in_model.model.facts.n_context_tokens
        bos = corpus.bos_token(model.tokenizer, model.facts.source) if known.prepend_bos else None
        sequences = golden.tokenise(known, model.tokenizer, bos=bos, n_context_tokens=n_context)
        n_batch = self._plan.options.n_batch_tokens
        try:
            (losses,) = corpus_pass.measure_items(
                model, [sae_in_model.sae], sequences, n_batch_tokens=n_batch, progress=lambda *_: None
            )
        except RuntimeError as problem:
            raise errors.MeasuringError(str(problem)) from None
        if isinstance(losses, Fault):
            raise errors.SaeError(losses.problem)
        facts = golden.facts(known, sequences, n_context_tokens=n_context)
        made_of = Provenance(sae=sae_in_model.sae.facts, model=model.facts, corpus=facts)
        n = len(losses.items)
        return Measured(
            losses=losses,
            provenance=made_of,
            n=n,
            n_planned=n,
            tokens_of=lambda i: token_texts(sequences, i, model.tokenizer),
        )

    def study(self, wanted: Wanted, together: Collection[Wanted] = ()) -> Measured[Any]:
        """Measure one study of an SAE or stack, on few sequences of the same corpora; raises as `measure`."""
        return self._studies.get(wanted, together)

    def copies(self, sae_id: str) -> Measured[tuple[str, ...]]:
        """
        Find the other SAEs of the release whose weights are the same, number by number.

        Raises:
            SaeError: this SAE cannot be loaded.
            MeasuringError: its model cannot be.
        """
        own = self._saes.get(sae_id).sae.fingerprint
        others = [sae_in_model.sae for sae_in_model in self._saes.measurable() if sae_in_model.sae.sae_id != sae_id]
        copies = tuple(other.sae_id for other in others if other.fingerprint == own)
        return Measured(losses=copies, provenance=None, n=0, n_planned=0)

    def explain(self, sae_id: str, text: Measured[TextLosses], documents: Sequence[int]) -> Explanation:
        """Explain the loss of an SAE in the first of *documents*; raises as `measure`."""
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

    def spliced_forward(self, sae_id: str) -> Callable[[], None]:
        """Return what a benchmark times: encode, decode and resume the model, on the first sequences of the plan."""
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
                torch.cuda.synchronize()  # kernels run behind the call

        return forward

    def _measure(
        self, kind: str, sae_ids: Collection[str], rule: StoppingRule | None, studied: Collection[Wanted]
    ) -> None:
        """Measure *sae_ids* in groups that share model and corpus and fit into memory."""
        into = self._found[kind]
        groups: dict[tuple[LanguageModel, bool], list[SaeInModel]] = {}
        for sae_id in sae_ids:
            try:
                sae_in_model = self._saes.get(sae_id)
                groups.setdefault((sae_in_model.model, sae_in_model.prepends_bos), []).append(sae_in_model)
            except (errors.SaeError, errors.MeasuringError) as problem:
                into[sae_id] = problem
        for group in (part for of_one in groups.values() for part in self._saes.groups(of_one)):
            cache = self._saes.weight_cache(group[0].model.device)
            try:
                with quiet():  # here: filters of warnings are the process's, and another thread loads
                    cache.start_loading([sae_in_model.sae for sae_in_model in group])
                    self._measure_group(kind, group, rule, studied)
            except (errors.MeasuringError, RuntimeError) as problem:  # torch's errors, out of memory included
                into.update(dict.fromkeys((r.sae.sae_id for r in group), errors.MeasuringError(str(problem))))
            finally:
                cache.finish_loading()

    def _measure_group(
        self, kind: str, group: list[SaeInModel], rule: StoppingRule | None, studied: Collection[Wanted]
    ) -> None:
        """One pass for *group*; after each round the SAEs that *rule* needs no more of leave it."""
        one, into = group[0], self._found[kind]
        planned = self._corpus(kind, one)
        watch = self._studies.watch(studied, one, planned.sequences)
        ends = round_ends(planned.sequences.rows, N_PER_ROUND[kind], () if watch is None else (watch.n_sequences,))
        for sums in self._rounds(kind, group, planned, ends, watch):
            for sae_in_model, of_sae in zip(group, sums, strict=True):
                if not of_sae.is_active:
                    continue
                found = self._measured(sae_in_model, of_sae.losses(), planned)
                into[sae_in_model.sae.sae_id] = found
                if isinstance(found, Measured):
                    of_sae.is_decided = not _needs_more(rule, sae_in_model.sae.sae_id, found)
        for sae_in_model, of_sae in zip(group, sums, strict=True):
            if of_sae.fault is not None:
                into[sae_in_model.sae.sae_id] = errors.SaeError(of_sae.fault)
        if watch is not None:
            self._studies.keep(watch, one)

    def _rounds(
        self, kind: str, group: list[SaeInModel], planned: Corpus, ends: Sequence[int], watch: corpus_pass.Watch | None
    ) -> Iterator[Sequence[Sums[Any]]]:
        """The pass over *planned* that measures *kind*, round by round."""
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
                ablates=self._plan.measures_ablation,
            )
        sums_of: Callable[[Sequences], AnswerSums[Any]] = ChoiceSums if kind == "cbt" else ItemSums
        return corpus_pass.item_rounds(
            model, saes, sequences, n_batch_tokens=n_batch, progress=progress, ends=ends, sums_of=sums_of
        )

    def _measured(
        self, sae_in_model: SaeInModel, losses: TextLosses | ItemLosses | ChoiceLosses | Fault, planned: Corpus
    ) -> Found:
        """What is known of an SAE by now, with the texts that people look at."""
        if isinstance(losses, Fault):
            return errors.SaeError(losses.problem)
        tokenizer = sae_in_model.model.tokenizer
        return Measured(
            losses=losses,
            provenance=Provenance(sae=sae_in_model.sae.facts, model=sae_in_model.model.facts, corpus=planned.facts),
            n=len(rows(losses)),
            n_planned=n_rows(planned),
            tokens_of=lambda i: token_texts(planned.sequences, i, tokenizer),
            texts=texts_of_flips(losses, planned.texts) if isinstance(losses, ItemLosses) else (),
            choices=cbt.choice_texts(planned.queries, flipped(losses)) if isinstance(losses, ChoiceLosses) else (),
        )

    def _corpus(self, kind: str, sae_in_model: SaeInModel) -> Corpus:
        """The corpus of *sae_in_model*: it depends on the tokenizer of its model and on its BOS rule."""
        key = (kind, sae_in_model.prepends_bos, sae_in_model.model.facts.source)
        if key not in self._corpora:
            place = self._plan.model_of(sae_in_model.described)
            tokenizer = sae_in_model.model.tokenizer
            self._corpora[key] = corpus.make(self._plan, place, kind, tokenizer, prepends_bos=sae_in_model.prepends_bos)
        return self._corpora[key]
