"""Names the installed version; the distribution is called zo-finetune, since `zo` is another project's on the index."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

DISTRIBUTION = "zo-finetune"


def version() -> str:
    """Returns the version, or '(not installed)' where the code is only on the path."""
    try:
        return version_of(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"
