"""
Measure in this process: the model and each corpus once, all SAEs that are wanted together in one clean pass.

Or in one for each group of SAEs whose weights fit into memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic

import torch

from sae_checks import errors
from sae_checks.corpora import cbt, corpus, golden
from sae_checks.corpora.corpus import Corpus
from sae_checks.corpora.sequences import token_texts
from sae_checks.explanation import Explanation
from sae_checks.losses import ChoiceLosses, ItemLosses, TextLosses
from sae_checks.measuring import choices, corpus_pass, explaining
from sae_checks.measuring.local_studies import Studied, Studies, Wanted
from sae_checks.measuring.measured import GoesOn, Losses, Measured, flipped, n_rows, rows, texts_of_flips
from sae_checks.measuring.saes_in_models import Ready, ReadySaes
from sae_checks.measuring.scoring import Fault, round_ends
from sae_checks.model.interface import LanguageModel, replace_with
from sae_checks.plan.golden_prompts import Golden
from sae_checks.plan.plan import Plan
from sae_checks.provenance import Provenance
from sae_checks.release.converters import quiet
from sae_checks.saes.splice import splice

Progress = Callable[[str, int, int], None]
"""Told (what is measured, tokens done, tokens in all)."""
N_PER_ROUND = {"text": 16, "lambada": 64, "cbt": 16}
"""Sequences, passages or queries after which SAEs leave. Two looks of text: rounds of one would be small batches."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run(Generic[Losses]):
    """One kind of pass: what measures, where that is kept, and how long an SAE stays."""

    kind: str
    measure: Callable[..., tuple[Losses | Fault, ...]]
    into: dict[str, Measured[Losses] | errors.SaeChecksError]
    goes_on: GoesOn[Losses] | None
    studied: Collection[Wanted] = ()

    def is_enough(self, sae_id: str, known: Measured[Losses]) -> bool:
        if self.goes_on is None:
            return known.n >= known.n_planned
        return known.n == known.n_most or not self.goes_on(sae_id, known)


class LocalExecutor:
    """
    Measures SAEs of a plan on demand.

    Asking for one SAE measures every SAE of *together* (a group that holds it) that is not measured yet, so that they
    share the clean pass. An error belongs to what it concerns and is raised again each time that is asked for.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        # SAEs and losses are said to be in float32, so no TF32 or bfloat16 in their products, whatever was set before.
        torch.set_float32_matmul_precision("highest")
        self._plan = plan
        self._progress = progress
        self._saes = ReadySaes(plan)
        self._corpora: dict[tuple[str, bool, str], Corpus] = {}
        self._text: dict[str, Measured[TextLosses] | errors.SaeChecksError] = {}
        self._items: dict[str, Measured[ItemLosses] | errors.SaeChecksError] = {}
        self._choices: dict[str, Measured[ChoiceLosses] | errors.SaeChecksError] = {}
        self._studies = Studies(plan, self._saes, self._planned, progress)

    def text(
        self,
        sae_id: str,
        together: Collection[str],
        goes_on: GoesOn[TextLosses] | None = None,
        studied: Collection[Wanted] = (),
    ) -> Measured[TextLosses]:
        """
        *sae_id* on the text corpus.

        An SAE leaves the pass when *goes_on*, which is told its id and what is known of it, says so; without, at the
        end of the plan. What is known of it already is given again if it need not go on. Studies of *studied* that use
        the beginnings of the same sequences will find their clean pass made.

        Raises:
            SaeError: this SAE cannot be measured.
            MeasuringError: the model or the corpus cannot be used.
        """
        measures = partial(corpus_pass.measure_text, ablates=self._plan.options.ablation)
        run = _Run(kind="text", measure=measures, into=self._text, goes_on=goes_on, studied=studied)
        return self._measured(run, sae_id, together)

    def items(
        self, sae_id: str, together: Collection[str], goes_on: GoesOn[ItemLosses] | None = None
    ) -> Measured[ItemLosses]:
        """*sae_id* on the Lambada passages; raises like `text`."""
        run = _Run(kind="lambada", measure=corpus_pass.measure_items, into=self._items, goes_on=goes_on)
        return self._measured(run, sae_id, together)

    def choices(
        self, sae_id: str, together: Collection[str], goes_on: GoesOn[ChoiceLosses] | None = None
    ) -> Measured[ChoiceLosses]:
        """*sae_id* on the queries of the Children's Book Test; raises like `text`."""
        run = _Run(kind="cbt", measure=choices.measure_choices, into=self._choices, goes_on=goes_on)
        return self._measured(run, sae_id, together)

    def golden(self, sae_id: str, known: Golden) -> Measured[ItemLosses]:
        """*sae_id* on its golden prompts, by their own rule for BOS and special tokens; raises like `text`."""
        ready = self._saes.get(sae_id)
        model, n_context = ready.model, ready.model.facts.n_context_tokens
        bos = corpus.bos_token(model.tokenizer, model.facts.source) if known.prepend_bos else None
        sequences = golden.tokenise(known, model.tokenizer, bos=bos, n_context_tokens=n_context)
        n_batch = self._plan.options.n_batch_tokens
        try:  # without progress: it is a moment
            (losses,) = corpus_pass.measure_items(
                model, [ready.sae], sequences, n_batch_tokens=n_batch, progress=_silent
            )
        except RuntimeError as problem:
            raise errors.MeasuringError(str(problem)) from None
        if isinstance(losses, Fault):
            raise errors.SaeError(losses.problem)
        facts = golden.facts(known, sequences, n_context_tokens=n_context)
        made_of = Provenance(sae=ready.sae.facts, model=model.facts, corpus=facts)
        n = len(losses.items)
        return Measured(
            losses=losses,
            provenance=made_of,
            n=n,
            n_planned=n,
            n_most=n,
            fingerprint=facts.fingerprint,
            tokens_of=lambda i: token_texts(sequences, i, model.tokenizer),
        )

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

    def explain(self, sae_id: str, text: Measured[TextLosses], documents: Sequence[int]) -> Explanation:
        """Where the loss of *sae_id* comes from, in the first of *documents*; raises like `text`."""
        ready = self._saes.get(sae_id)
        return explaining.explanation(
            ready.model,
            ready.sae.loaded(),
            self._corpus("text", ready).sequences,
            text.losses,
            documents,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=lambda done, total: self._progress("explanation", done, total),
        )

    def spliced_forward(self, sae_id: str) -> Callable[[], None]:
        """What a benchmark times: encode, decode and resume the model, on the first sequences of the plan."""
        ready = self._saes.get(sae_id)
        one, model = ready.sae.loaded(), ready.model
        first = self._corpus("text", ready).sequences
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

    def _measured(self, run: _Run[Losses], sae_id: str, together: Collection[str]) -> Measured[Losses]:
        found = run.into.get(sae_id)
        if isinstance(found, Measured) and not run.is_enough(sae_id, found):  # it left when others were satisfied
            del run.into[sae_id]
        if sae_id not in run.into:
            self._measure(run, dict.fromkeys([*together, sae_id]))
        found = run.into[sae_id]
        if isinstance(found, errors.SaeChecksError):
            raise found
        return found

    def _measure(self, run: _Run[Losses], sae_ids: Collection[str]) -> None:
        groups: dict[tuple[LanguageModel, bool], list[Ready]] = {}
        for each in sae_ids:
            if each not in run.into:
                try:
                    ready = self._saes.get(each)
                    groups.setdefault((ready.model, ready.prepends_bos), []).append(ready)
                except (errors.SaeError, errors.MeasuringError) as problem:
                    run.into[each] = problem
        for group in (part for of_one in groups.values() for part in self._saes.groups(of_one)):
            cache = self._saes.weight_cache(group[0].model.device)
            try:
                with quiet():  # here: filters of warnings are the process's, and another thread loads
                    cache.start_loading([ready.sae for ready in group])
                    self._measure_group(run, group)
            except (errors.MeasuringError, RuntimeError) as problem:  # torch's errors, out of memory included
                run.into.update(dict.fromkeys((r.sae.sae_id for r in group), errors.MeasuringError(str(problem))))
            finally:
                cache.finish_loading()

    def _measure_group(self, run: _Run[Losses], group: list[Ready]) -> None:
        """*group*, whose SAEs share model and corpus."""
        one = group[0]
        whole = self._corpus(run.kind, one)
        planned = self._planned(run.kind, one)
        watch = self._studies.watch(run.studied, one, planned.sequences)
        n_planned = n_rows(planned)
        pauses = {len(planned.sequences.rows)} | ({watch.n_sequences} if watch is not None else set())

        def measured(ready: Ready, losses: Losses) -> Measured[Losses]:
            n = len(rows(losses))
            of = planned if n <= n_planned else whole
            made_of = Provenance(sae=ready.sae.facts, model=one.model.facts, corpus=of.facts)
            texts = texts_of_flips(losses, whole.texts) if isinstance(losses, ItemLosses) else ()
            return Measured(
                losses=losses,
                provenance=made_of,
                n=n,
                n_planned=n_planned,
                fingerprint=planned.facts.fingerprint,
                n_most=n_rows(whole),
                tokens_of=lambda i: token_texts(whole.sequences, i, one.model.tokenizer),
                texts=texts,
                choices=cbt.choice_texts(whole.queries, flipped(losses)) if isinstance(losses, ChoiceLosses) else (),
            )

        found = run.measure(
            one.model,
            [ready.sae for ready in group],
            whole.sequences,
            n_batch_tokens=self._plan.options.n_batch_tokens,
            progress=lambda done, total: self._progress(run.kind, done, total),
            rounds=corpus_pass.Rounds(
                ends=round_ends(whole.sequences.rows, N_PER_ROUND[run.kind], pauses),
                goes_on=lambda i, known: not run.is_enough(group[i].sae.sae_id, measured(group[i], known)),
            ),
            **({} if watch is None else {"watch": watch}),
        )
        for ready, losses in zip(group, found, strict=True):
            sae_id = ready.sae.sae_id
            if isinstance(losses, Fault):
                run.into[sae_id] = errors.SaeError(losses.problem)
            else:
                run.into[sae_id] = measured(ready, losses)
        if watch is not None:
            self._studies.keep(watch, one)

    def _corpus(self, kind: str, ready: Ready) -> Corpus:
        """What *ready* is measured on: a corpus depends on its model's tokenizer and on its convention."""
        key = (kind, ready.prepends_bos, ready.model.facts.source)
        if key not in self._corpora:
            place = self._plan.model_of(ready.described)
            tokenizer = ready.model.tokenizer
            self._corpora[key] = corpus.make(self._plan, place, kind, tokenizer, prepends_bos=ready.prepends_bos)
        return self._corpora[key]

    def _planned(self, kind: str, ready: Ready) -> Corpus:
        """Of text only what is measured without an extension."""
        whole = self._corpus(kind, ready)
        return corpus.first_sequences(whole, self._plan.options.n_sequences) if kind == "text" else whole


def _silent(_n_done: int, _n_all: int) -> None:
    """No progress is told."""
