"""The errors of zo, each also the standard type a caller would expect to catch, and its warning."""


class ZOError(Exception):
    """Anything zo refuses or gives up on; the message says what, why and what to do."""


class ZOWarning(UserWarning):
    """Anything that zo goes on after, and whoever runs it should know; the message is a sentence that says it all."""


class ConfigError(ZOError, ValueError):
    """A choice of the user's that cannot work: a value out of range, two options that exclude each other."""


class DataError(ZOError, ValueError):
    """Data that cannot be read or do not fit the task that names them."""


class LookError(ZOError, RuntimeError):
    """A model that cannot be evaluated at the points an optimizer asks for."""


class MissingPackage(ZOError, ImportError):
    """A package that is not installed and that zo itself does not need."""


class Idle(ConfigError):
    """A run whose first steps all made no move, because their losses do not depend on the perturbation."""


class Unseen(LookError, ConfigError):
    """Trained weights that no evaluation reads, so that training them would do nothing."""


class JournalError(ZOError, RuntimeError):
    """A journal or snapshot that is damaged, or belongs to another run."""


class Locked(JournalError):
    """A run that another process is at."""


class Diverged(ZOError, ArithmeticError):
    """Losses that are no finite numbers. A diverged run is a result, not a failure of the program."""


class RankLost(ZOError, RuntimeError):
    """Another process of this run ended, or cannot be reached in time."""


class RanksDiverged(ZOError, RuntimeError):
    """Processes that should hold the same do not: weights, steps, or what they were built from."""
