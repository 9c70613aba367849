"""Every exception of this package. Each takes one string, so that it survives pickling to another process."""

from __future__ import annotations


class SaeChecksError(Exception):
    """The root of all exceptions that this package raises for its users."""


class UsageError(SaeChecksError, ValueError):
    """The request cannot be carried out: exit code 4, and nothing is measured or written."""


class SaeError(SaeChecksError):
    """One SAE cannot be measured: its checks are errors, and the other SAEs are judged."""


class HookNotHereError(SaeError):
    """This backend does not have the hook; another backend may."""


class MeasuringError(SaeChecksError):
    """The language model or a corpus cannot be used: every check that needs it is an error."""


class ModelNotUnderstoodError(MeasuringError):
    """This backend cannot take the model apart; another backend may."""


class HubError(SaeChecksError):
    """The Hugging Face Hub did not give what was requested; before anything is measured: exit code 4."""


class HubBusyError(HubError):
    """The Hub does not answer now and may answer later."""

    wait_s: float = 0.0
    """How long the Hub asks to wait, in seconds."""


class RecordError(SaeChecksError):
    """A file is not a run record, or not of a schema that this version reads."""


class HistoryError(SaeChecksError):
    """A history of runs cannot be written or read. No verdict changes, and the run does not end with exit code 0."""
