"""The exceptions that the command line shows as a sentence instead of a traceback, and text that is safe to show."""


def printable(text: str) -> str:
    r"""`text` as one line that cannot drive a terminal: what does not print is shown as Python escapes it, \n or \x1b.

    Names of files, classes and archive members are whatever somebody wrote: they may hold line ends, a terminal's
    control sequences, marks that turn the direction of reading, or bytes that are no text.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class InputError(ValueError):
    """Something a user can put right; the message says in one line what is wrong, where, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class MissingLibraryError(InputError):
    """What was asked for needs an optional library that is not installed."""


class FaultError(RuntimeError):
    """What ended a run that its user did nothing wrong about; the message says what happened and how to go on.

    All processes of a run meet it, and the first tells it; `report_here` where another must.
    """

    def __init__(self, message: str, report_here: bool = False) -> None:
        super().__init__(message)
        self.report_here = report_here


class Preempted(Exception):  # noqa: N818 (no error)
    """A run was told to stop, has saved itself, and can be continued."""


class LocalInputError(InputError):
    """An InputError that one process of several meets alone, and so must tell itself: an unreadable image."""
