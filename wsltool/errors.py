"""Every error that wsltool raises on purpose.

The tree (exit code of the command line behind it)::

    WslError                         1  a known failure: one line, no traceback
    ├── UsageError (ValueError)      2  an option or argument is wrong
    ├── PipeError (EOFError)         1  nothing usable came through the pipe
    ├── ExtraMissingError (ImportError)    1  an optional package is not installed
    ├── StoreError (ValueError)      1  a store is not what it should be
    │   ├── StoreMissingError (FileNotFoundError)   there is no such store
    │   ├── StoreExistsError (FileExistsError)      something else is in the way
    │   ├── StoreUnfinishedError     its writer stopped before the end
    │   ├── StoreKindError           a stage was given another kind
    │   └── StoreCorruptError (OSError)    bytes are missing or flipped
    ├── LineageError (LookupError)   an input of a store is gone or has changed
    ├── DatasetError (ValueError)    other people's files are not as they should be
    ├── ModelError (ValueError)      a network cannot be built, read or used
    │   └── WeightsMissingError (FileNotFoundError)  its weights are not here
    ├── TrainingError (ArithmeticError)    training cannot go on
    ├── ProtocolError (ValueError)   a protocol does not fit what it was given
    └── BadImageError (ValueError)   one row is unusable; ``--on-bad skip`` leaves it out

    Interrupted (BaseException)      128 + signal number

Each class is also the builtin that it means. Messages read *where: what is wrong, with
the value; what was expected. What to do.*
"""

from __future__ import annotations

__all__ = [
    "BadImageError",
    "DatasetError",
    "ExtraMissingError",
    "Interrupted",
    "LineageError",
    "ModelError",
    "PipeError",
    "ProtocolError",
    "StoreCorruptError",
    "StoreError",
    "StoreExistsError",
    "StoreKindError",
    "StoreMissingError",
    "StoreUnfinishedError",
    "TrainingError",
    "UsageError",
    "WeightsMissingError",
    "WslError",
]


class WslError(Exception):
    """A known failure, told in one line."""

    exit_code = 1

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class UsageError(WslError, ValueError):
    """An option or argument is wrong."""

    exit_code = 2


class PipeError(WslError, EOFError):
    """Nothing usable came through the pipe."""


class ExtraMissingError(WslError, ImportError):
    """An optional package is not installed."""


class StoreError(WslError, ValueError):
    """A store is not what it should be."""


class StoreMissingError(StoreError, FileNotFoundError):
    """There is no such store."""


class StoreExistsError(StoreError, FileExistsError):
    """Something else stands where the output should go."""


class StoreUnfinishedError(StoreError):
    """The writer of the store stopped before the end."""


class StoreKindError(StoreError):
    """A stage was given a store of another kind than it reads."""


class StoreCorruptError(StoreError, OSError):
    """Bytes of a store are missing or flipped, or break the schema."""


class LineageError(WslError, LookupError):
    """An input that a store was made from is gone or has changed."""


class DatasetError(WslError, ValueError):
    """Other people's files are not as they should be."""


class ModelError(WslError, ValueError):
    """A network cannot be built, read or used."""


class WeightsMissingError(ModelError, FileNotFoundError):
    """The weights of a known network are not on this machine."""


class TrainingError(WslError, ArithmeticError):
    """Training cannot go on, for instance because the loss is not finite."""


class ProtocolError(WslError, ValueError):
    """A protocol does not fit the stores that it was given."""


class BadImageError(WslError, ValueError):
    """One row is unusable; ``--on-bad skip`` leaves it out.

    The message says what is wrong with the picture or its annotation. Whoever knows the
    store and the row puts them in front (`where`).
    """

    def where(self, place: str) -> BadImageError:
        """Return the same error with `place` in front and the cure behind."""
        return BadImageError(f"{place}: {self} Pass --on-bad skip to leave it out.")


class Interrupted(BaseException):
    """A signal asked the process to stop; work in flight is dropped."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum
