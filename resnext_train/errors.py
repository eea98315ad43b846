"""The exceptions that the command line shows as a sentence instead of a traceback."""


class InputError(ValueError):
    """Something a user can put right; the message says what is wrong, where, and what to do."""


class LocalInputError(InputError):
    """An InputError that one process of several meets alone, and so must tell itself: an unreadable image."""
