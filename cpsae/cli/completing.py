"""What a shell is offered for values: folders, files, presets and other names, for every command
alike, by an option's name or by what its metavar says. Imports nothing heavy: it runs at each tab.
"""

from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

from cpsae.interop import TARGETS
from cpsae.tracking import TRACKERS

_Values = Callable[[], Sequence[str]]
_DTYPES = ("bfloat16", "float16", "float32")


def presets() -> list[str]:
    """As `cpsae.training.recipes.preset_names` has them, which brings torch along."""
    from cpsae.sae.kinds import kind_names

    return ["paper", "baseline", "frontier", *kind_names()]


_NAMES: dict[str, _Values] = {
    "--preset": presets,
    "--presets": presets,
    "--track": lambda: list(TRACKERS),
    "--to": lambda: list(TARGETS),
    "--device": lambda: ("auto", "cpu", "cuda"),
    "--hook": lambda: ("resid_pre", "attn_out", "mlp_out", "resid_post"),
    "--dtype": lambda: ("auto", *_DTYPES),
    "--store-dtype": lambda: _DTYPES,
    "--attention": lambda: (
        "auto",
        "eager",
        "sdpa",
        "flash_attention_2",
        "flex_attention",
    ),
}
"""By option. Where several are taken, joined by commas, the last one is completed."""
_PATHS = {
    "FOLDER": "dir",
    "FOLDER|URL": "dir",
    "DIR": "dir",
    "RUN": "dir",
    "RUN...": "dir",
    "STORE": "dir",
    "STORE_OR_RUN": "dir",
    "FILE": "file",
    "ID|PATH": "file",
    "SRC": "file",
}
"""By metavar."""


class _Text(click.types.StringParamType):
    """Any text, with something to offer for it."""

    def __init__(self, values: _Values | None, path: str | None) -> None:
        self._values, self._path = values, path

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """What may follow."""
        if self._values is None:
            return [CompletionItem(incomplete, type=self._path or "plain")]
        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in self._values()
            if name.startswith(last) and name not in before.split(",")
        ]


def with_completion(command: click.Command) -> click.Command:
    """The command, whose options and arguments of plain text offer what there is for them."""
    for param in command.params:
        if param.type is not click.STRING:
            continue
        values = next((_NAMES[flag] for flag in param.opts if flag in _NAMES), None)
        path = _PATHS.get(param.metavar or "")
        if values or path:
            param.type = _Text(values, path)
    return command
