"""`cpsae completion`: what a shell needs to complete commands, options and values."""

import click

_SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the script for tab completion in a shell.")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options and their values.

    \b
    # bash, in ~/.bashrc; zsh, in ~/.zshrc after compinit
    source <(cpsae completion bash)
    # fish, in ~/.config/fish/config.fish
    cpsae completion fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    root = ctx.find_root()
    click.echo(found(root.command, {}, "cpsae", "_CPSAE_COMPLETE").source())
