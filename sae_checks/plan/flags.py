"""Every `--sae-` option as pytest offers it, and what the command line and the ini file said. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sae_checks import errors

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "bfloat16", "float16")
PROFILES = ("smoke", "release", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """One `--sae-` option; its ini key is the same name with underscores."""

    flag: str
    metavar: str
    help: str
    example: str = ""
    """A value that the option takes, for messages; empty for a switch."""
    choices: tuple[str, ...] = ()
    """All values that the option takes; empty: others, too."""
    default: str | None = None
    repeatable: bool = False
    is_switch: bool = False

    @property
    def key(self) -> str:
        """The ini key and argparse destination: `--sae-model` -> `sae_model`."""
        return key_of(self.flag)


def key_of(flag: str) -> str:
    """The ini key and argparse destination of *flag*."""
    return flag.removeprefix("--").replace("-", "_")


SPECS: tuple[OptionSpec, ...] = (
    OptionSpec(
        flag="--sae-release",
        example="demo",
        metavar="NAME",
        help="the release: a name of SAE Lens's registry or a Hub repository org/name, either with @REVISION for "
        "another branch, tag or commit than main; a folder of SAEs; demo or demo-broken. HF_HUB_OFFLINE=1 "
        "uses the commits in the Hub's cache",
    ),
    OptionSpec(
        flag="--sae-id",
        example="blocks.0.*",
        metavar="GLOB",
        help="judge only the SAEs whose id matches (repeatable)",
        repeatable=True,
    ),
    OptionSpec(
        flag="--sae-shard",
        example="1/4",
        metavar="I/N",
        help="judge only part I of N of the SAEs; sae-checks merge joins the records of all parts",
    ),
    OptionSpec(
        flag="--sae-allow-pickle",
        metavar="",
        help="accept weights in pickles and .npz files; only tensors are read, no code is run",
        is_switch=True,
    ),
    OptionSpec(
        flag="--sae-model",
        example="gpt2",
        metavar="NAME",
        help="the language model: a folder in Hugging Face format, or a Hub repository org/name[@REVISION]; "
        "default: the model that the release names",
    ),
    OptionSpec(
        flag="--sae-corpus",
        example="text.jsonl",
        metavar="TEXT",
        help="held-out text: a .jsonl or .parquet file (text, or token ids as input_ids), a .txt file, or a Hub "
        "dataset org/name[@REVISION][:CONFIG][:SPLIT]; default for releases on the Hub: the SAEs' training "
        "text if it can be read, else Open WebText",
    ),
    OptionSpec(
        flag="--sae-lambada",
        example="EleutherAI/lambada_openai",
        metavar="TEXT",
        help="Lambada passages, whose last word is the answer: a .jsonl or .parquet file (text), or a Hub "
        "dataset; default for releases on the Hub: EleutherAI/lambada_openai",
    ),
    OptionSpec(
        flag="--sae-cbt",
        example=":NE",
        metavar="TEXT",
        help="Children's Book Test: a .jsonl or .parquet file (sentences, question, answer, options), a Hub "
        "dataset, or :NE for the named entities of the default; default for releases on the Hub: the common "
        "nouns, cam-cst/cbt:CN",
    ),
    OptionSpec(
        flag="--sae-profile",
        example="release",
        choices=PROFILES,
        metavar="P",
        default="release",
        help="release: INCONCLUSIVE fails; smoke: a quarter of the text, and INCONCLUSIVE warns; full: as "
        "release, but all of the text is measured, and zero ablation, too, for calibration, baselines and "
        "curves",
    ),
    OptionSpec(
        flag="--sae-sequences",
        example="256",
        metavar="N",
        help="measure at most N sequences of text, fewer if they decide; default: 256, smoke 64. Lambada "
        "passages and queries of the Children's Book Test follow: 1000 and 200 for 256 sequences",
    ),
    OptionSpec(
        flag="--sae-context",
        example="128",
        metavar="N",
        help="tokens per sequence; default: the model's context, but at most 1024 or twice the longest training "
        "context",
    ),
    OptionSpec(
        flag="--sae-study-sequences",
        example="32",
        metavar="N",
        default="32",
        help="sequences for checks that splice several times: propagation, next_sae, last_sae, own_layer, "
        "random_error, stacked; four times as many Lambada passages for stacked_lambada; 0 leaves these "
        "checks out, and distinct",
    ),
    OptionSpec(
        flag="--sae-seed",
        example="0",
        metavar="N",
        default="0",
        help="seed of the order of documents, passages and queries",
    ),
    OptionSpec(
        flag="--sae-device",
        example="auto",
        choices=DEVICES,
        metavar="D",
        default="auto",
        help=f"where to compute: one of {', '.join(DEVICES)}",
    ),
    OptionSpec(
        flag="--sae-dtype",
        example="float32",
        choices=DTYPES,
        metavar="T",
        default="float32",
        help=f"dtype of the language model: one of {', '.join(DTYPES)}; SAEs and losses are always float32",
    ),
    OptionSpec(
        flag="--sae-batch-tokens",
        example="4096",
        metavar="N",
        default="4096",
        help="at most N tokens per forward pass",
    ),
    OptionSpec(
        flag="--sae-memory",
        example="8",
        metavar="GIB",
        help="memory for the weights of SAEs, in GiB; more than fits is measured in groups; default: half of the "
        "free memory",
    ),
    OptionSpec(
        flag="--sae-special-tokens",
        example="keep,auto",
        metavar="RULE",
        default="keep,auto",
        help="keep: the SAE leaves BOS and other special tokens as they are, and they are not scored; replace: "
        "it replaces them, and they are scored. After a comma: auto (BOS before every sequence if the SAE "
        "was trained so), bos (always) or no-bos (never); for example replace,no-bos",
    ),
    OptionSpec(
        flag="--sae-thresholds",
        example="limits.toml",
        metavar="FILE",
        help="limits that take precedence over the shipped thresholds.toml",
    ),
    OptionSpec(
        flag="--sae-out",
        example="gate-report",
        metavar="DIR",
        help="write record.json, report/, junit.xml and benchmark.json into DIR; without it a run writes nothing",
    ),
    OptionSpec(
        flag="--sae-history",
        example="history",
        metavar="URL",
        help="add the run record to a history of runs: a folder, or any URL that fsspec opens",
    ),
    OptionSpec(
        flag="--sae-baseline",
        example="last",
        metavar="RUN",
        help="compare with an earlier run on the same tokens: its record; last, the record.json that "
        "--sae-out has from before; or a git revision of that file (REVISION or REVISION:PATH)",
    ),
    OptionSpec(
        flag="--sae-explain",
        example="blocks.0.*",
        metavar="GLOB",
        help="say why the SAEs whose id matches are red: the predictions that cost most, and the positions and "
        "latents that the cost comes from (repeatable)",
        repeatable=True,
    ),
)

REMOVED = {"--sae-record": "--sae-out", "--sae-report": "--sae-out"}
"""Options of earlier versions, each with the one to use instead."""


def bad_value(key: str, got: str, expected: str) -> errors.UsageError:
    """The error for the option with ini key *key*, which was given *got*."""
    spec = next(spec for spec in SPECS if spec.key == key)
    return errors.bad_option(spec.flag, got, expected, spec.example)


def defaults() -> dict[str, str | list[str] | None]:  # a dict: the border to pytest's string-keyed options
    """What `options.parse` gets when nothing was asked."""
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
            raise bad_value(spec.key, "", "a value")
        for found in (ini(spec.key), given(spec.key)):
            if spec.is_switch:
                raw[spec.key] = "yes" if found is True else raw[spec.key]
            elif isinstance(found, list):
                raw[spec.key] = [str(entry) for entry in found] or raw[spec.key]
            elif found:
                raw[spec.key] = str(found)
    return raw
