"""What is shipped: every file of the package in the wheel, which runs where there is no checkout;
the version in one place, the files beside it in step with it."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import cpsae

ROOT = Path(cpsae.__path__[0]).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by the build backend, as any installer calls it."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import hatchling.build as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    """As an installer lays it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def test_every_file_is_in_it(unpacked) -> None:
    there = {p.relative_to(ROOT).as_posix() for p in (ROOT / "cpsae").rglob("*") if p.is_file()}
    expected = {name for name in there if "__pycache__" not in name}
    shipped = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    assert {name for name in shipped if ".dist-info/" not in name} == expected
    assert "cpsae/py.typed" in shipped and "cpsae/demo/demo-model/model.safetensors" in shipped
    assert "cpsae/dashboard/templates/page.html.j2" in shipped


def test_its_metadata(unpacked) -> None:
    [folder] = unpacked.glob("*.dist-info")
    about = Parser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))
    assert about["Version"] == cpsae.__version__
    assert about["License-Expression"] == "Apache-2.0" and (folder / "licenses/LICENSE").exists()
    assert {"sae-lens", "track", "test", "dev"} <= set(about.get_all("Provides-Extra") or [])
    assert "cpsae = cpsae.cli.main:main" in (folder / "entry_points.txt").read_text()


START = """
import sys
from pathlib import Path
import cpsae
assert Path(cpsae.__file__).parents[1] == Path(sys.argv[1]), cpsae.__file__
from cpsae.demo import run
from cpsae.demo.corpus import write_corpus
out = Path("demo")
write_corpus(out / "corpus.jsonl")
stored = cpsae.extract(run.extract_settings(out).model_copy(update={"vectors": 2000}))
settings = run.fit_settings().model_copy(update={"steps": 5, "n_latents": 64, "batch_size": 64})
fitted = cpsae.fit(stored.path, settings, out=out / "run", progress=False)
print(sorted(fitted.summary)[:1])
"""


def test_it_runs_the_demo_with_no_checkout(unpacked, tmp_path) -> None:
    """Both stages of it, made short, and the command itself."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    how: dict = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", START, str(unpacked)], **how)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/run/sae.safetensors").exists()
    done = subprocess.run([sys.executable, "-m", "cpsae", "info", "demo/acts.zarr"], **how)
    assert done.returncode == 0 and "demo/acts.zarr" in done.stdout, done.stderr


def test_the_files_beside_it_know_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cpsae.__version__ and citation["license"] == "Apache-2.0"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {cpsae.__version__}\n" in changes
    newest = next(line for line in changes.splitlines() if line.startswith("## "))
    assert newest in ("## Unreleased", f"## {cpsae.__version__}")
