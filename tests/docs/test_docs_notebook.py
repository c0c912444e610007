"""The tutorial runs from top to bottom in a fresh kernel, and is small."""

from pathlib import Path

import nbformat
from doc_blocks import ROOT
from nbclient import NotebookClient

TUTORIAL = ROOT / "docs/tutorial.ipynb"


def test_the_tutorial_runs_and_finds_features(tmp_path: Path) -> None:
    notebook = nbformat.read(TUTORIAL, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in data for data in shown) == 3
    texts = [data.get("text/plain", "") for data in shown]
    assert any(text.startswith("FitResult(tutorial/run: explained_variance 0.") for text in texts)
    assert any("fit: 500 of 500 steps (100%)" in text for text in texts)
    assert any("the strongest features of each" in text for text in texts)


def test_the_tutorial_is_kept_small_and_of_no_machine() -> None:
    content = TUTORIAL.read_text(encoding="utf-8")
    assert len(content) < 150_000
    assert "/tmp/" not in content and "/home/" not in content
    nbformat.validate(nbformat.read(TUTORIAL, as_version=4))
