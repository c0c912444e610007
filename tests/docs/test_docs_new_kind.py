"""The kind of docs/new-kind.md, as a package that is installed: its files are the page's."""

import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks_of, commands_of, cpsae_arguments

from cpsae.sae import kinds
from cpsae.testing.kinds import KindTests

BLOCKS = blocks_of(ROOT / "docs/new-kind.md")
MODULE, TESTS = (block.content for block in BLOCKS if block.language == "python")
(ENTRY,) = (block.content for block in BLOCKS if block.language == "toml")
(SHELL,) = (block.content for block in BLOCKS if block.language == "shell")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The page's package, as pip leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "mykind.py").write_text(MODULE)
    metadata = folder / "mykind-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mykind\nVersion: 1.0\n")
    entries = tomllib.loads(ENTRY)["project"]["entry-points"]["cpsae.kinds"]
    lines = [f"{name} = {value}\n" for name, value in entries.items()]
    (metadata / "entry_points.txt").write_text("[cpsae.kinds]\n" + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        kinds._declared.cache_clear()
        yield
    kinds._declared.cache_clear()
    sys.modules.pop("mykind", None)


class TestTanh(KindTests):
    """As the page's own test has it."""

    name = "tanh"


def test_the_page_s_test_is_the_one_above() -> None:
    names: dict[str, object] = {}
    exec(TESTS, names)
    found = names["TestTanh"]
    assert isinstance(found, type) and issubclass(found, KindTests)
    assert found.name == TestTanh.name


def test_the_page_s_command_runs(world: Path, run_command: Callable[[list[str]], str]) -> None:
    (arguments,) = map(cpsae_arguments, commands_of(SHELL))
    assert arguments is not None
    run_command([*arguments, "--set", "log_every=1", "--out", "run"])
    assert '"tanh"' in (world / "run/metrics.jsonl").read_text()
    run_command(["export", "run", "--to", "safetensors", "--out", "exported"])
