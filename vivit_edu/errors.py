"""The errors of the package: each says what was given, what was expected and what to do.

All of them are `ValueError`s, so that code which knows nothing of this package still catches them.
The command line prints their message without a traceback and exits with status 2.
"""


class VivitEduError(ValueError):
    """Any error that this package raises on purpose."""


class DataError(VivitEduError):
    """A data file or a data set: missing, damaged, of another layout, or not to be written."""


class ConfigError(VivitEduError):
    """A name, an option or a shape that was asked for and cannot be built."""


class CheckpointError(VivitEduError):
    """A checkpoint, pretrained weights or a run folder that cannot be used."""


class TrainingError(VivitEduError):
    """Training that cannot go on, such as a loss that is no longer a number."""


class LostProcessError(TrainingError):
    """One of several processes that train together is gone."""
