"""The page docs/options.md, made from the table behind `--help`: python -m sae_checks.plan.options_page."""

from __future__ import annotations

import sys

from sae_checks.plan.flags import GROUPS, SPECS, OptionSpec

_HEAD = """\
# Options

<!-- python -m sae_checks.plan.options_page > docs/options.md -->

`pytest --sae-release=RELEASE` runs the gate and nothing else, from any folder; pytest's own options
work as for any test. Without a release the plugin does nothing.

Each option is also a key of the ini file: `--sae-release` is `sae_release`. Write options with `=`:
pytest takes a path after a space for a test path when it looks for the ini file. With the extra
`sae-checks[completion]`, shells complete names of releases:
`eval "$(register-python-argcomplete sae-checks pytest)"`.
"""


def page() -> str:
    """The whole page."""
    lines = [_HEAD]
    for group in GROUPS:
        lines += [f"\n## {group.capitalize()}\n\n"]
        lines += [f"- `{_written(spec)}`: {_told(spec)}\n" for spec in SPECS if spec.group == group]
    return "".join(lines)


def _written(spec: OptionSpec) -> str:
    return spec.flag if spec.is_switch else f"{spec.flag}={spec.metavar}"


def _told(spec: OptionSpec) -> str:
    """The help, with its default."""
    text = spec.help + (f" (default: {spec.default})" if spec.default is not None else "")
    return text.replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(page())
