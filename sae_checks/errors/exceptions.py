"""Every exception of this package. Each takes one string, so that it survives pickling to another process."""

from __future__ import annotations


class SaeChecksError(Exception):
    """Anything this package says on purpose."""


class UsageError(SaeChecksError):
    """What was asked cannot be done as asked: exit code 4, nothing measured, nothing written."""


class SaeError(SaeChecksError):
    """One SAE cannot be measured: its checks are errors, the other SAEs are judged."""


class HookNotHereError(SaeError):
    """A backend does not have the hook; another may."""


class MeasuringError(SaeChecksError):
    """The language model or a corpus cannot be used: every check that needs it is an error."""


class ModelNotUnderstoodError(MeasuringError):
    """A backend cannot take the model apart; another may."""


class HubError(SaeChecksError):
    """The Hugging Face Hub did not give what was asked of it."""


class HubNameError(HubError):
    """What was asked for is not there: exit code 4, as for any name that is wrong."""


class HubBusyError(HubError):
    """It may give it later."""

    wait_s: float = 0.0
    """how long the Hub asks to wait."""


class RecordError(SaeChecksError):
    """A file is not a run record of a schema that this version reads."""


class HistoryError(SaeChecksError):
    """A history of runs cannot be written or read: no verdict changes, and it is not passed over."""
