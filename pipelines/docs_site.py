"""What mkdocs is told beside mkdocs.yml: pages that are made when the site is built, and links out
of docs, for which a site has no place."""

import html
import itertools
import re
from pathlib import Path, PurePosixPath
from typing import Any

import click
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from cpsae.cli.main import cli

_LINK = re.compile(r"\[(?P<text>[^\]\n]*)\]\((?P<target>\.\./[^)\s]*)\)")
_COMMANDS = """# Commands

What `cpsae COMMAND --help` prints; the [guide](guide.md) tells more of each. All of them take
`--json`, and exit with 0 when they are done, 1 after an error in one line, 2 where the command line
alone is wrong, and 128 + the signal when they are stopped.
"""
_WIDTH = 96
"""Columns of the commands' help."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    tutorial = Path(config.docs_dir) / "tutorial.ipynb"
    files.append(File.generated(config, "commands.md", content=commands_page()))
    files.append(File.generated(config, "tutorial.md", content=notebook_page(tutorial)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead to the notebook as a page, and say where the files are that a link out of docs leads
    to: they are not on the site."""
    folder = PurePosixPath(page.file.src_uri).parent
    shown = markdown.replace("(tutorial.ipynb)", "(tutorial.md)")
    return _LINK.sub(lambda match: _inside(match, folder), shown)


def _inside(match: re.Match[str], folder: PurePosixPath) -> str:
    target = match["target"]
    up = target.count("../")
    if up <= len(folder.parts):
        return match[0]
    path = target.removeprefix("../" * up)
    return f"{match['text']} (`{path}` of the project)"


def commands_page() -> str:
    """The help of each command, as it prints it."""
    group = click.Context(cli, info_name="cpsae")
    parts = [_COMMANDS]
    for name in cli.list_commands(group):
        command = cli.get_command(group, name)
        assert command is not None
        context = click.Context(command, group, name, max_content_width=_WIDTH)
        context.terminal_width = _WIDTH
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def notebook_page(path: Path) -> str:
    """A notebook as a page: its text, its code, and what that printed and drew."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        outputs = map(_output, cell.outputs)
        for is_text, contents in itertools.groupby(outputs, lambda shown: shown[0]):
            shown = [content for _, content in contents if content]
            parts += ["```text\n{}\n```".format("\n".join(shown))] if is_text else shown
    return "\n\n".join(parts) + f"\n\nThe notebook: `docs/{path.name}` of the project.\n"


def _output(output: Any) -> tuple[bool, str]:
    """Whether it is text, and what it is."""
    if output.output_type == "stream":
        return True, output.text.rstrip()
    content = output.data
    if "image/png" in content:
        data = "".join(content["image/png"].split())
        alt = html.escape(content.get("text/plain", ""))
        return False, f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    return True, content.get("text/plain", "").rstrip()
