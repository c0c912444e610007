"""`cpsae demo`: both stages on an embedded model, and what was learned."""

from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.options import output_options, terminal_of

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal
    from cpsae.demo.run import Demo
    from cpsae.evaluation.examples import Example, FeatureExamples


@click.command(short_help="See both stages work on this machine, in three minutes.")
@click.option("--out", default="demo", show_default=True, metavar="FOLDER", help="Where to write.")
@output_options
def command(out: str, **values: Any) -> None:
    """Run extract and fit on a small embedded language model, and show what its features mean.

    Needs no network, no account and no GPU. The model was trained by this project on Python's
    standard library, whose source on this machine is the text.
    """
    with terminal_of(values) as terminal:
        from cpsae.cli.memory import keep_freed_blocks
        from cpsae.demo.run import run_demo

        keep_freed_blocks()
        demo = run_demo(out, terminal.on_event)
        if not terminal.result(_as_json(demo)):
            show(terminal, demo)


def _as_json(demo: "Demo") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "store": str(demo.store),
        "run": str(demo.run),
        "summary": demo.summary,
        "features": [asdict(feature) for feature in demo.features],
        "page": str(demo.page),
    }


def show(terminal: "Terminal", demo: "Demo") -> None:
    """The demo's result as people read it."""
    summary = demo.summary
    terminal.print(
        f"\nThe autoencoder explains {summary['explained_variance']:.0%} of the variance of "
        f"held-out activations with {summary['l0_eff']:.0f} effective latents a token "
        f"(of {summary['n_enabled']}).\n"
        "Some of its features, and the held-out text that fires each of them most:\n"
    )
    for feature in demo.features:
        _show_feature(terminal, feature)
    terminal.print(f"The run is in {demo.run}, its activations in {demo.store}.")
    terminal.print(f"All its features are on one page: open {demo.page.absolute().as_uri()}")


def _show_feature(terminal: "Terminal", feature: "FeatureExamples") -> None:
    terminal.line(
        (f"feature {feature.feature}", "title"),
        (
            f"  on {feature.rate:.1%} of tokens, {feature.consistency:.0%} of the strongest at ",
            "plain",
        ),
        (visible(feature.label), "label"),
    )
    for example in feature.examples:
        terminal.line(*_spans(example, terminal.width))
    terminal.print()


def _spans(example: "Example", width: int) -> list[tuple[str, str]]:
    activation, token = f"  {example.activation:6.2f}  ", visible(example.token)
    before = min(36, (width - len(activation)) // 2)
    after = min(24, max(0, width - len(activation) - before - len(token)))
    return [
        (activation, "plain"),
        (visible(example.before)[-before:].rjust(before), "aside"),
        (token, "marked"),
        (visible(example.after)[:after], "aside"),
    ]


def visible(text: str) -> str:
    """Text on one line, with signs for line ends, tabs and runs of blanks."""
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    return shown.replace("  ", "··") if shown.strip(" ") else "·" * len(shown)
