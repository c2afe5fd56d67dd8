"""The errors and warnings of Poise.

```
PoiseError
├── ConfigError    (ValueError)     a setting that cannot be used
├── DataError      (ValueError)     data that cannot be used
│   ├── ReadError                   a file that cannot be read as a table
│   └── ColumnsError                columns that are not those of the training table
├── BundleError    (ValueError)     a saved run that is damaged, foreign or of another version
├── SurgeryError   (RuntimeError)   a change of a model that was not made, or cannot be taken back
├── ExportError    (RuntimeError)   a model that was not written in another format
├── TrainingError  (RuntimeError)   a training that failed, for example by a non-finite loss
└── ResumeError    (RuntimeError)   a run folder that cannot be continued

PoiseWarning       (UserWarning)    something allowed that is rarely what one wants
```

Each error is also the builtin that a caller would catch, and says what happened, where, why, and what to do next.
"""

from __future__ import annotations


class PoiseError(Exception):
    """Root of every error that Poise raises on purpose.

    Args:
        what: What is wrong, one sentence.
        where: The file, column, row, layer or setting.
        repair: What to do next.

    Example:
        >>> print(DataError("Zero rows.", where="table 'churn.csv'", repair="Give at least two rows."))
        Zero rows. (in table 'churn.csv') Give at least two rows.
    """

    def __init__(self, what: str, *, where: str | None = None, repair: str | None = None) -> None:
        self.what = what
        self.where = where
        self.repair = repair
        parts = [what, f"(in {where})" if where else None, repair]
        super().__init__(" ".join(part for part in parts if part))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.repair)


def _rebuild(cls: type[PoiseError], what: str, where: str | None, repair: str | None) -> PoiseError:
    return cls(what, where=where, repair=repair)


class ConfigError(PoiseError, ValueError):
    """A setting outside its range, of the wrong type, or in conflict with another."""


class DataError(PoiseError, ValueError):
    """Data from which nothing sound can be learnt or predicted."""


class ReadError(DataError):
    """A file that cannot be read as a table."""


class ColumnsError(DataError):
    """Columns that differ from those of the training table."""


class BundleError(PoiseError, ValueError):
    """A saved run that is damaged, foreign or of another version."""


class SurgeryError(PoiseError, RuntimeError):
    """A change of a model that was not made, or that cannot be taken back."""


class ExportError(PoiseError, RuntimeError):
    """A model that cannot be written in another format, or would compute something else there."""


class TrainingError(PoiseError, RuntimeError):
    """A training that failed."""


class ResumeError(PoiseError, RuntimeError):
    """A run folder that cannot be continued."""


class PoiseWarning(UserWarning):
    """Something that works and is rarely what one wants."""
