"""Writes the tables of docs/configuration.md from the declarations of the code: python tools/config_tables.py"""

import re
from pathlib import Path

from experiments.config.describe import key_table
from experiments.training.result_record import result_table

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"


def with_tables(text: str) -> str:
    """Returns the page with its tables as the code declares them."""
    for name, table in (("keys", key_table()), ("result", result_table())):
        block = f"<!-- {name} -->\n{table}<!-- /{name} -->"
        text = re.sub(
            rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, block=block: block, text, flags=re.DOTALL
        )
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
