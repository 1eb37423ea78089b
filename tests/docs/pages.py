"""What stands in README.md and docs/*.md: commands, files to be written, headings and links.

A command is a line of an indented or fenced block, or a span of code, that begins with a program. A file is a block
after a paragraph that ends with a colon and names it: "`conf/task/tickets.yaml`:".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "python3", "pip", "make", "torchrun", "srun", "sbatch", "source", "export", "cd", "git", "cp",
            "jupyter", "tensorboard", "trackio", "wandb", "zo", ".ci/run", ".venv/bin/")  # fmt: skip
SHELLS = ("sh", "bash", "shell", "console")


@dataclass(frozen=True)
class Block:
    """An indented or fenced block: where it starts, its language, its text, and the paragraph before it."""

    line: int
    language: str
    text: str
    before: str


@dataclass(frozen=True)
class Command:
    """A command of a page."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"


def blocks(text: str) -> Iterator[Block]:
    """The blocks of code of a page."""
    lines, paragraph, n = text.splitlines(), "", 0
    while n < len(lines):
        start, line = n, lines[n]
        if line.startswith("```"):
            n = next(k for k in range(n + 1, len(lines)) if lines[k].startswith("```")) + 1
            yield Block(start + 1, line[3:].strip(), "\n".join(lines[start + 1 : n - 1]), paragraph)
            paragraph = ""
        elif line.startswith("    ") and not (start and lines[start - 1].strip()):
            while n < len(lines) and (lines[n].startswith("    ") or not lines[n].strip()):
                n += 1
            body = "\n".join(row[4:] for row in lines[start:n]).rstrip()
            yield Block(start + 1, "", body, paragraph)
            paragraph = ""
        else:
            n += 1
            paragraph = line if start and not lines[start - 1].strip() else f"{paragraph} {line}"
            paragraph = paragraph.strip()


def prose(text: str) -> str:
    """A page without its blocks; lines keep their numbers."""
    lines = text.splitlines()
    for block in blocks(text):
        fence = 2 if lines[block.line - 1].startswith("```") else 0
        for n in range(block.line - 1, block.line - 1 + len(block.text.splitlines()) + fence):
            lines[n] = ""
    return "\n".join(lines)


def spans(text: str) -> Iterator[tuple[int, str]]:
    """Spans of code in the prose, with the number of their line; one that is broken over lines is put together."""
    plain = prose(text)
    for found in re.finditer(r"`([^`]+)`", plain):
        yield plain.count("\n", 0, found.start()) + 1, " ".join(found[1].split())


def commands(path: Path) -> list[Command]:
    """Every command of a page, without its comment, continued lines joined."""
    text, name = path.read_text(), path.relative_to(ROOT).as_posix()
    found = []
    for block in blocks(text):
        body = block.text.replace("\\\n", " ")
        for n, line in enumerate(body.splitlines()):
            bare = re.sub(r"\s{2,}#.*$", "", line).strip()
            if _starts(bare) or (block.language in SHELLS and bare and not bare.startswith("#")):
                found.append(Command(name, block.line + n, " ".join(bare.split())))
    for line, span in spans(text):
        whole = len(span.split()) > 1 and _starts(span)
        if whole or span == ".ci/run" or re.match(r"… .*=", span):
            found.append(Command(name, line, span))
    return list({command.text: command for command in reversed(found)}.values())[::-1]


def _starts(line: str) -> bool:
    word = line.partition(" ")[0]
    return word in PROGRAMS or word.startswith(".venv/bin/")


def variables(path: Path) -> dict[str, str]:
    """Shell variables that a page sets: S="model=hub ..."."""
    return dict(re.findall(r'^    ([A-Z]+)="(.*)"$', path.read_text(), re.MULTILINE))


def files(path: Path) -> dict[str, str]:
    """The files that a page tells its reader to write, by their path."""
    found = {}
    for block in blocks(path.read_text()):
        named = re.findall(r"`((?:conf|my-conf|zo|sweeps)/[\w./-]+\.(?:ya?ml|py))`", block.before)
        if named and block.before.endswith(":"):
            found[named[0]] = block.text + "\n"
    return found


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(
            slug
            if slug not in found
            else next(f"{slug}-{n}" for n in range(1, 99) if f"{slug}-{n}" not in found)
        )
    return found


def links(text: str) -> list[tuple[int, str]]:
    """The targets of a page's links, with the numbers of their lines."""
    plain = re.sub(r"`[^`\n]*`", lambda code: "`" * len(code[0]), prose(text))
    return [(plain.count("\n", 0, f.start()) + 1, f[1]) for f in re.finditer(r"\]\(([^)\s]+)\)", plain)]
