"""Draw the end of a demo as docs/images/demo.svg, a picture of the documentation.

cpsae demo && python pipelines/demo_picture.py demo docs/images/demo.svg
"""

import re
import sys
from pathlib import Path

from rich.console import Console

from cpsae.cli.demo import show
from cpsae.cli.terminal import Terminal
from cpsae.demo.run import run_demo


def main(demo: Path, picture: Path) -> None:
    """Show a finished demo on a console that records, and save what it shows."""
    terminal = Terminal(quiet=True)
    terminal.out = Console(record=True, width=114, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115, PTH123
    show(terminal, run_demo(demo))
    picture.parent.mkdir(parents=True, exist_ok=True)
    svg = terminal.out.export_svg(title="cpsae demo")
    # Without rich's fonts from the network: any monospaced one of the reader's will do.
    picture.write_text(re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
