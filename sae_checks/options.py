"""What was asked, parsed and checked once. Standard library only: the plugin reads this in every pytest run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sae_checks import errors, shards

SpecialTokens = Literal["keep", "replace"]
Bos = Literal["auto", "on", "off"]
Profile = Literal["smoke", "release", "full"]

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "bfloat16", "float16")
BACKENDS = ("auto", "transformers", "transformer_lens")
PROFILES: tuple[Profile, ...] = ("smoke", "release", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """One `--sae-` option; its ini key is the same name with underscores."""

    flag: str
    metavar: str
    help: str
    default: str | None = None
    repeatable: bool = False
    is_switch: bool = False

    @property
    def key(self) -> str:
        """The ini key and argparse destination: `--sae-model` -> `sae_model`."""
        return self.flag.removeprefix("--").replace("-", "_")


SPECS: tuple[OptionSpec, ...] = (
    OptionSpec(
        flag="--sae-release",
        metavar="NAME",
        help="the release to judge: a name of SAE Lens's registry, a Hub repository org/name[@revision], a folder of "
        "SAEs, demo, demo-broken",
    ),
    OptionSpec(flag="--sae-id", metavar="GLOB", help="only SAEs whose id matches (repeatable)", repeatable=True),
    OptionSpec(
        flag="--sae-shard",
        metavar="I/N",
        help="judge only the I-th of N shares of the release's SAEs; sae-checks merge makes one record of all N",
    ),
    OptionSpec(flag="--sae-revision", metavar="REV", help="branch, tag or commit of the release; default: main"),
    OptionSpec(
        flag="--sae-offline", metavar="", help="use exactly the commits that the Hub's cache holds", is_switch=True
    ),
    OptionSpec(
        flag="--sae-allow-pickle",
        metavar="",
        help="load SAEs whose weights are pickles or .npz (tensors alone: no code of theirs runs)",
        is_switch=True,
    ),
    OptionSpec(
        flag="--sae-model",
        metavar="NAME",
        help="the language model: a folder in Hugging Face format, or a Hub repository org/name[@revision]; default: "
        "the one that the release names",
    ),
    OptionSpec(
        flag="--sae-backend",
        metavar="B",
        default="auto",
        help="what runs the model: transformers, transformer_lens, or auto (transformers wherever it has the SAE's "
        "hooks)",
    ),
    OptionSpec(
        flag="--sae-corpus",
        metavar="TEXT",
        help="held-out text: .jsonl or .parquet (text, or token ids as input_ids), .txt, or a Hub dataset "
        "org/name[@revision][:config][:split]; default for releases of the Hub: the text that the SAEs were trained on "
        "if it can be read, else Open WebText",
    ),
    OptionSpec(
        flag="--sae-lambada",
        metavar="TEXT",
        help="Lambada passages, the last word is the answer: .jsonl or .parquet (text) or a Hub dataset; default for "
        "releases of the Hub: EleutherAI/lambada_openai",
    ),
    OptionSpec(
        flag="--sae-cbt",
        metavar="TEXT",
        help="Children's Book Test: .jsonl or .parquet (sentences, question, answer, options) or a Hub dataset, or :NE "
        "for the named entities of the default; default for releases of the Hub: cam-cst/cbt:CN, common nouns",
    ),
    OptionSpec(
        flag="--sae-profile",
        metavar="P",
        default="release",
        help="smoke: a quarter of the text, passages and queries, and INCONCLUSIVE warns; release: INCONCLUSIVE fails; "
        "full: release, and measured to the end, also what is decided before, for curves and for baselines",
    ),
    OptionSpec(
        flag="--sae-sequences",
        metavar="N",
        help="sequences of text to measure at most, fewer where they decide; default: 256, smoke 64",
    ),
    OptionSpec(
        flag="--sae-max-sequences",
        metavar="N",
        help="while a verdict on text is inconclusive, measure more sequences, up to so many; default: no more",
    ),
    OptionSpec(
        flag="--sae-context",
        metavar="N",
        help="tokens per sequence; default: the model's context, at most 1024 or twice the longest training context",
    ),
    OptionSpec(flag="--sae-items", metavar="N", help="Lambada passages to measure at most; default: 1000, smoke 250"),
    OptionSpec(
        flag="--sae-queries",
        metavar="N",
        help="Children's Book Test queries to measure at most, each once per option, ten times; default: 200, smoke 50",
    ),
    OptionSpec(
        flag="--sae-study-sequences",
        metavar="N",
        default="32",
        help="sequences for what takes several splices: propagation, own layer, random errors, stacks (and four times "
        "as many Lambada passages for stacks); 0 leaves all that out, and the comparison of weights",
    ),
    OptionSpec(
        flag="--sae-ablation",
        metavar="",
        help="measure also what zeros in place of the activation cost (ce_ablated, ce_recovered), which takes as long "
        "again; done without it where a limit is on one of them",
        is_switch=True,
    ),
    OptionSpec(flag="--sae-seed", metavar="N", default="0", help="seed of the order of documents and passages"),
    OptionSpec(flag="--sae-device", metavar="D", default="auto", help=f"one of {', '.join(DEVICES)}"),
    OptionSpec(
        flag="--sae-dtype",
        metavar="T",
        default="float32",
        help=f"the model's dtype, one of {', '.join(DTYPES)}; SAEs and losses are always float32",
    ),
    OptionSpec(flag="--sae-batch-tokens", metavar="N", default="4096", help="tokens per forward pass, at most"),
    OptionSpec(
        flag="--sae-memory",
        metavar="GIB",
        help="memory for weights of SAEs; what does not fit is measured group by group; default: half of what is free",
    ),
    OptionSpec(
        flag="--sae-clean-cache",
        metavar="DIR",
        help="keep the model's clean passes there (gigabytes), for further runs of the same model on the same text; "
        "default: nowhere",
    ),
    OptionSpec(
        flag="--sae-special-tokens",
        metavar="RULE",
        default="keep",
        help="keep: BOS and other special tokens are neither replaced nor scored; replace: they are both",
    ),
    OptionSpec(
        flag="--sae-bos",
        metavar="RULE",
        default="auto",
        help="one BOS before every sequence: auto (as each SAE was trained), on, off",
    ),
    OptionSpec(flag="--sae-thresholds", metavar="FILE", help="limits that lie over the shipped thresholds.toml"),
    OptionSpec(flag="--sae-record", metavar="FILE", help="write the run record (JSON) there"),
    OptionSpec(
        flag="--sae-history",
        metavar="URL",
        help="keep the run record there, too, beside those of earlier runs: a folder, or any URL that fsspec opens",
    ),
    OptionSpec(
        flag="--sae-report",
        metavar="DIR",
        help="write the report there: index.html, summary.md, and the plots as PNG (with the extra sae-checks[report])",
    ),
    OptionSpec(
        flag="--sae-baseline",
        metavar="RUN",
        help="compare with an earlier run on the same tokens: its record, last (what --sae-record names, before this "
        "run), or what --sae-record names at a git revision (REVISION or REVISION:PATH)",
    ),
    OptionSpec(
        flag="--sae-explain",
        metavar="GLOB",
        help="say why the SAEs whose id matches are red: the predictions that cost most, and the positions and latents "
        "that this comes from (repeatable)",
        repeatable=True,
    ),
    OptionSpec(
        flag="--sae-calibrate",
        metavar="FILE",
        help="write limits made from what is measured there, for a person to review; never over a file that exists",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run, as asked."""

    release: str
    revision: str | None = None
    offline: bool = False
    allow_pickle: bool = False
    sae_ids: tuple[str, ...] = ()
    """fnmatch patterns; empty means every SAE."""
    shard: str | None = None
    """I/N; None: the whole release."""
    model: str | None = None
    backend: str = "auto"
    corpus: str | None = None
    lambada: str | None = None
    cbt: str | None = None
    profile: Profile = "release"
    n_sequences: int = 256
    n_most_sequences: int | None = None
    """to which an inconclusive verdict extends; None: *n_sequences*."""
    n_context_tokens: int | None = None
    """None: chosen from the model and the SAEs, see `plan.make`."""
    n_items: int = 1000
    n_queries: int = 200
    n_study_sequences: int = 32
    ablation: bool = False
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    """of the language model; SAEs and losses are float32."""
    n_batch_tokens: int = 4096
    memory_gib: float | None = None
    """for the weights of SAEs; None: a share of what is free."""
    clean_cache: Path | None = None
    """the folder of clean passes; None: they are not kept."""
    special_tokens: SpecialTokens = "keep"
    bos: Bos = "auto"
    thresholds: Path | None = None
    record: Path | None = None
    history: str | None = None
    """a folder or URL, see `history.place`."""
    report: Path | None = None
    """the folder of the report."""
    baseline: str | None = None
    """a path, `last`, or a git revision, see `baseline.load`."""
    calibrate: Path | None = None
    explain: tuple[str, ...] = ()
    """fnmatch patterns of the SAEs that are explained."""


def parse(raw: Mapping[str, str | list[str] | None]) -> Options:
    """
    Options from what the command line and the ini file gave, by option key (`sae_release`, ...).

    Raises:
        UsageError: a value that is no whole number, device, dtype or rule.
    """

    def text(key: str) -> str | None:
        value = raw.get(key)
        assert not isinstance(value, list), key
        return value or None

    def path(key: str) -> Path | None:
        value = text(key)
        try:
            return None if value is None else Path(value).expanduser()
        except RuntimeError:  # ~name of nobody
            raise errors.bad_option(_flag(key), str(value), "a path whose home folder exists") from None

    def path_or_name(key: str) -> str | None:
        value = text(key)
        return str(path(key)) if value is not None and value.startswith("~") else value

    def count(key: str, *, least: int = 1) -> int:
        return _whole_number(_flag(key), text(key) or "", least=least)

    def choice(key: str, choices: tuple[str, ...]) -> str:
        value = text(key) or ""
        if value not in choices:
            raise errors.bad_option(_flag(key), value, f"one of {', '.join(choices)}")
        return value

    record = path("sae_record")
    if record is not None and (record.is_dir() or not record.absolute().parent.is_dir()):
        raise errors.bad_option("--sae-record", str(record), "a file in a folder that exists")
    calibrate = path("sae_calibrate")
    if calibrate is not None and (calibrate == record or not _is_new(calibrate)):
        expected = "a new file in a folder that exists: no file is overwritten"
        raise errors.bad_option("--sae-calibrate", str(calibrate), expected)
    profile: Profile = next(p for p in PROFILES if p == choice("sae_profile", PROFILES))
    n_sequences, n_items, n_queries = (64, 250, 50) if profile == "smoke" else (256, 1000, 200)
    n_sequences = count("sae_sequences") if text("sae_sequences") else n_sequences
    return Options(
        release=text("sae_release") or "",
        revision=text("sae_revision"),
        offline=text("sae_offline") is not None,
        allow_pickle=text("sae_allow_pickle") is not None,
        shard=_shard(text("sae_shard")),
        sae_ids=_patterns(raw.get("sae_id")),
        model=path_or_name("sae_model"),
        backend=choice("sae_backend", BACKENDS),
        corpus=path_or_name("sae_corpus"),
        lambada=path_or_name("sae_lambada"),
        cbt=path_or_name("sae_cbt"),
        profile=profile,
        n_sequences=n_sequences,
        n_most_sequences=count("sae_max_sequences", least=n_sequences) if text("sae_max_sequences") else None,
        n_context_tokens=count("sae_context", least=2) if text("sae_context") else None,
        n_items=count("sae_items") if text("sae_items") else n_items,
        n_queries=count("sae_queries") if text("sae_queries") else n_queries,
        n_study_sequences=count("sae_study_sequences", least=0),
        ablation=text("sae_ablation") is not None,
        seed=count("sae_seed", least=0),
        device=choice("sae_device", DEVICES),
        dtype=choice("sae_dtype", DTYPES),
        n_batch_tokens=count("sae_batch_tokens"),
        memory_gib=_gib("--sae-memory", text("sae_memory")),
        clean_cache=_folder("--sae-clean-cache", path("sae_clean_cache")),
        special_tokens="replace" if choice("sae_special_tokens", ("keep", "replace")) == "replace" else "keep",
        bos=_bos(choice("sae_bos", ("auto", "on", "off"))),
        thresholds=path("sae_thresholds"),
        record=record,
        history=path_or_name("sae_history"),
        report=_folder("--sae-report", path("sae_report")),
        baseline=path_or_name("sae_baseline"),
        calibrate=calibrate,
        explain=_patterns(raw.get("sae_explain")),
    )


def defaults() -> dict[str, str | list[str] | None]:  # a dict: the border to pytest's string-keyed options
    """What `parse` gets when nothing was asked."""
    return {spec.key: spec.default for spec in SPECS}


def gather(given: Callable[[str], object], ini: Callable[[str], object]) -> dict[str, str | list[str] | None]:
    """
    Command line over ini file over default, for every option; *given* and *ini* look one key up.

    Raises:
        UsageError: an option was given an empty value.
    """
    raw = defaults()
    for spec in SPECS:
        if given(spec.key) == "":  # an unset variable of a script: what was meant is not known
            raise errors.bad_option(spec.flag, "", "a value")
        for found in (ini(spec.key), given(spec.key)):
            if spec.is_switch:
                raw[spec.key] = "yes" if found is True else raw[spec.key]
            elif isinstance(found, list):
                raw[spec.key] = [str(entry) for entry in found] or raw[spec.key]
            elif found:
                raw[spec.key] = str(found)
    return raw


def _patterns(value: str | list[str] | None) -> tuple[str, ...]:
    return tuple([value] if isinstance(value, str) else value or [])


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _is_new(path: Path) -> bool:
    return not path.exists() and not path.is_symlink() and path.absolute().parent.is_dir()


def _folder(flag: str, path: Path | None) -> Path | None:
    """*path*, if it is a folder or can become one."""
    if path is not None and not path.is_dir() and not _is_new(path):
        raise errors.bad_option(flag, str(path), "a folder, or a new one in a folder that exists")
    return path


def _bos(value: str) -> Bos:
    return "on" if value == "on" else "off" if value == "off" else "auto"


def _whole_number(flag: str, value: str, *, least: int) -> int:
    try:
        number = int(value)
    except ValueError:
        raise errors.bad_option(flag, value, f"a whole number, at least {least}") from None
    if number < least:
        raise errors.bad_option(flag, value, f"a whole number, at least {least}")
    return number


def _gib(flag: str, value: str | None) -> float | None:
    try:
        number = None if value is None else float(value)
    except ValueError:
        number = math.nan
    if number is not None and not 0 < number < math.inf:
        raise errors.bad_option(flag, str(value), "a number of GiB above 0")
    return number


def _shard(share: str | None) -> str | None:
    return None if share is None else str(shards.parse(share))
