"""The exceptions that the command line shows as a sentence instead of a traceback."""


class InputError(ValueError):
    """Something a user can put right; the message says what is wrong, where, and what to do."""


class MissingLibraryError(InputError):
    """What was asked for needs an optional library that is not installed."""


class FaultError(RuntimeError):
    """What ended a run that its user did nothing wrong about; the message says what happened and how to go on.

    All processes of a run meet it, and the first tells it; `told_here` where another must.
    """

    def __init__(self, message: str, told_here: bool = False) -> None:
        super().__init__(message)
        self.told_here = told_here


class Preempted(Exception):  # noqa: N818 (no error)
    """A run was told to stop, has saved itself, and can be continued."""


class LocalInputError(InputError):
    """An InputError that one process of several meets alone, and so must tell itself: an unreadable image."""
