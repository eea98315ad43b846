"""The exceptions that the command line shows as a sentence instead of a traceback."""


class InputError(ValueError):
    """Something a user can put right; the message says what is wrong, where, and what to do."""


class MissingLibraryError(InputError):
    """What was asked for needs an optional library that is not installed."""


class LocalInputError(InputError):
    """An InputError that one process of several meets alone, and so must tell itself: an unreadable image."""
