"""Errors that a user can act on: each names the thing, the place and the remedy in one message."""


class EbnerdError(Exception):
    """Base of every error that this package raises on purpose."""


class BundleError(EbnerdError):
    """A bundle's files are missing, malformed or contradict each other."""


class ConfigError(EbnerdError):
    """A parameter file, a notebook's parameters or a profile is wrong."""


class StageError(EbnerdError):
    """A stage cannot start or finish: an artifact of an earlier stage is missing or wrong."""


class SubmissionError(EbnerdError):
    """A submission cannot be made of a model, or a submission's file is wrong."""


class LockedError(EbnerdError):
    """Another process works on the same profile or stage."""


class StorageError(EbnerdError):
    """A file or folder of the project cannot be written: no space, no permission, no such place."""


class LicenceError(EbnerdError):
    """The licence terms of the data were not accepted, so nothing of it is fetched."""


class DownloadError(EbnerdError):
    """A file cannot be fetched: no such address, no connection, or not the file that was expected."""


def first_line(error: BaseException) -> str:
    r"""Return the first line of what another library's error says, as far as a message has room for it.

    >>> first_line(ValueError("no parquet file:\nmagic bytes")), first_line(EOFError())
    ('no parquet file', 'EOFError')
    """
    lines = str(error).strip().splitlines() or [""]
    return lines[0].rstrip(":.")[:300] or type(error).__name__
