"""The exceptions that the command line shows as a sentence instead of a traceback, and text that is safe to print."""


def printable(text: str) -> str:
    r"""Return `text` as one line that cannot control a terminal; other characters are escaped as in Python: \n, \x1b.

    Names of files, classes and archive members may hold line ends, control sequences of a terminal, marks that change
    the direction of reading, or bytes that are not text.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class InputError(ValueError):
    """Something a user can correct; the message says in one line what is wrong, where, and what to do.

    Of several mistakes at once, `more` has a line for each.
    """

    def __init__(self, message: str, *more: str) -> None:
        super().__init__("\n  ".join(map(printable, (message, *more))))


class MissingLibraryError(InputError):
    """The request needs an optional library that is not installed."""


class FaultError(RuntimeError):
    """A run ended through no mistake of its user; the message says what happened and how to continue.

    All ranks raise it, and rank 0 reports it; `report_here` where another must.
    """

    def __init__(self, message: str, report_here: bool = False, exit_code: int = 1) -> None:
        super().__init__(message)
        self.report_here, self.exit_code = report_here, exit_code


class Preempted(Exception):  # noqa: N818 (no error)
    """A signal stopped the run; it is saved and can be continued."""


class LocalInputError(InputError):
    """An InputError of one rank alone, which must report it itself, such as an unreadable image."""


class ReportedInputError(InputError):
    """A LocalInputError of another rank, which has reported it."""
