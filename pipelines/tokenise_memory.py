"""What tokenising one long document takes of memory and time, a row a tokenizer family:

    python pipelines/tokenise_memory.py

The peak is that of the whole process above what it held before the document was opened, tokenizer
included; each row is a process of its own. `--without-blanks` takes the blanks out of the text.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cpsae.corpus import Corpus, PackingPlan, open_corpus, pack

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.corpus.tokenizers_of_families import FAMILIES, LINES  # noqa: E402

SHOWN = ("gpt2", "llama3", "llama2", "gemma", "bert", "t5")
TOKENS = 128


def write_text(path: Path, megabytes: float, blanks: bool) -> None:
    """A text of these many megabytes, in which no stretch of a window's length comes twice."""
    line, size = 0, 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            text = f"{line}. {LINES[line * 7 % 5]} {line * line % 9973}\n"
            text = text if blanks else "".join(text.split())
            size += len(text.encode())
            file.write(text)
            line += 1


def measure(name: str, path: Path, vectors: int) -> None:
    """Print one row of the table."""
    tokenizer = FAMILIES[name]()
    tokenizer("warm up")
    before, began = _peak_mib(), time.monotonic()
    reading = open_corpus(Corpus(str(path)))
    plan = PackingPlan(TOKENS, vectors)
    packed = pack(reading.documents, tokenizer, plan, one_document=reading.is_one_document)
    seconds, grown = time.monotonic() - began, _peak_mib() - before
    print(f"| {name} | {packed.training.size:,} | {grown:.1f} MiB | {seconds:.2f} s |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, help="a text of your own")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--vectors", type=int, default=5000)
    parser.add_argument("--without-blanks", action="store_true")
    parser.add_argument("--only", choices=FAMILIES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        measure(asked.only, asked.text, asked.vectors)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = asked.text or Path(folder) / "text.txt"
        if asked.text is None:
            write_text(path, asked.megabytes, not asked.without_blanks)
        print(f"{path.stat().st_size / 1e6:,.0f} MB, {asked.vectors:,} vectors\n")
        print("| tokenizer | tokens | peak above the start | time |\n|---|---|---|---|", flush=True)
        for name in SHOWN:
            own = ["--only", name, "--text", str(path), "--vectors", str(asked.vectors)]
            subprocess.run([sys.executable, __file__, *own], check=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
