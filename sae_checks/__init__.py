"""
A pytest suite that decides whether a release of sparse autoencoders (SAEs) is good enough to ship.

`__all__` names the public API. Each name is imported when it is first used, so importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_checks import errors
    from sae_checks.judging.estimates import Estimate
    from sae_checks.record.results import Record, Result
    from sae_checks.run.api import judge, list_saes, read_record

__version__ = "0.1.0.dev0"
__all__ = ["Estimate", "Record", "Result", "errors", "judge", "list_saes", "read_record"]

_MODULE_OF = {
    "judge": "sae_checks.run.api",
    "list_saes": "sae_checks.run.api",
    "read_record": "sae_checks.run.api",
    "Record": "sae_checks.record.results",
    "Result": "sae_checks.record.results",
    "Estimate": "sae_checks.judging.estimates",
}


def __getattr__(name: str) -> Any:  # Any: a function, a class or a module
    """Import a name of the public API when it is first used."""
    if name == "errors":
        return import_module("sae_checks.errors")
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'sae_checks' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, with those that are not imported yet."""
    return sorted([*globals(), *__all__])
