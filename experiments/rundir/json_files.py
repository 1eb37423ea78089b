"""JSON files that other processes write, replace and remove."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none, or one that is not whole.

    There is no question beforehand whether it is there: it may be gone by the time it is read. Raises PermissionError
    for one that this user may not read.
    """
    try:
        made = json.loads(path.read_text())
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None
    return made if isinstance(made, dict) else None
