"""The code blocks of README and docs: where they are, what they are, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "pipelines").rglob("README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

PROGRAMS = {"cpsae", "python", "python3", "torchrun", "git", "cd", "rsync", "pip", "time", "export"}
"""What a line of a shell block begins with; also what tells such a block from a text."""
_MARKER = re.compile(r"<!-- not run: (?P<reason>.{10,}?) -->", re.DOTALL)
_VARIABLE = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page."""

    page: Path
    line: int
    """From 1."""
    language: str
    """python, shell, toml or text."""
    content: str
    not_run: str | None
    """Why it is not run, as an HTML comment in front of it says."""

    @property
    def where(self) -> str:
        """As an error names it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All of a page, in order."""
    found, marker = [], None
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            match = _MARKER.fullmatch(token.content.strip())
            marker = match["reason"] if match else None
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            language = _language(token.info.split()[0] if token.info else "", token.content)
            found.append(Block(page, token.map[0] + 1, language, token.content, marker))
            marker = None
        elif token.nesting >= 0 and token.type != "inline":
            marker = None
    return found


def _language(info: str, content: str) -> str:
    if info in ("python", "toml", "text"):
        return info
    assert info in ("", "shell"), f"a block of '{info}': say python, shell, toml or text"
    first = next((line for line in content.splitlines() if line.strip()), "")
    words = _without_variables(first.removeprefix("$ ").split())
    return "shell" if words and words[0].split("/")[-1] in PROGRAMS else "text"


def commands_of(content: str) -> list[list[str]]:
    """The commands of a shell block, each as its words, without variables in front. Where lines
    begin with a prompt, the others are what commands answer."""
    text = content.replace("\\\n", " ")
    lines = text.splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    commands = []
    for line in lines:
        words = shlex.split(line.rstrip("& "), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            commands.append(_without_variables(words[:end]))
            words = words[end + 1 :]
    return [command for command in commands if command]


def cpsae_arguments(command: list[str]) -> list[str] | None:
    """What stands behind `cpsae`, also where torchrun or Python starts it."""
    if command[0].split("/")[-1] == "cpsae":
        return command[1:]
    if command[0] == "time":
        return cpsae_arguments(command[1:])
    if "-m" in command and command[command.index("-m") + 1 :][:1] == ["cpsae"]:
        return command[command.index("-m") + 2 :]
    return None


def _without_variables(words: list[str]) -> list[str]:
    while words and _VARIABLE.fullmatch(words[0]):
        words = words[1:]
    return words
