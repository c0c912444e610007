"""The lines of docs/export-format.md, run as they stand there, against float64 numpy."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import CONSTANTS, FORMS, SCALE, D, M, make_run, make_sae, plainly, relative, rows

import cpsae
from cpsae.interop import plain
from cpsae.interop.origin import Origin

PAGE = (Path(__file__).parents[2] / "docs/export-format.md").read_text()
WHOLE, BY_FORM, BY_ROWS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def parts(block: str) -> dict[str, str]:
    """The lines below each comment."""
    pieces = re.split(r"^# ([\w-]+)\n", block, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def run_lines(folder: Path, x: torch.Tensor) -> dict:
    about = json.loads((folder / "autoencoder.json").read_text())
    place = {"folder": folder, "x": x, "torch": torch, "about": about}
    forms = {"jumprelu": re.search(r"^a = .*$", WHOLE, re.MULTILINE)[0], **parts(BY_FORM)}
    lines = re.sub(r"^a = .*$", lambda _: forms[about["form"]], WHOLE, flags=re.MULTILINE)
    if about["rows"] != "none":
        lines = "\n".join([parts(BY_ROWS)["before"], lines, parts(BY_ROWS)["after"]])
    exec(lines, place)
    return place


@pytest.mark.parametrize("normalize", ["none", "unit", "sqrt-d", "layer", "layer-variance"])
@pytest.mark.parametrize("kind", CONSTANTS)
def test_a_few_lines_of_torch_compute_the_same(tmp_path, kind, normalize) -> None:
    run = make_run(tmp_path / "run", kind, normalize)
    scale = cpsae.export(run, "safetensors", tmp_path / "out").files.latent_scale
    x = rows(normalize)
    found = run_lines(tmp_path / "out", x)
    latents, outputs = plainly(cpsae.load(run), x)
    assert relative(found["a"] / scale, latents) < 1e-5
    assert relative(found["x_hat"], outputs) < 1e-5
    assert found["about"]["form"] == FORMS[kind]
    assert scale == (SCALE if normalize in ("unit", "sqrt-d") else 1)


def test_softmax_over_active_features(tmp_path) -> None:
    sae = make_sae("competitive", "unit", {"over": "active"})
    files = plain.export(sae, Origin.of_run({}))
    for name, content in files.contents.items():
        (tmp_path / name).write_bytes(content)
    x = rows("unit")
    found = run_lines(tmp_path, x)
    assert relative(found["a"] / SCALE, sae.encode(x)[:, :M]) < 1e-5


def test_the_page_names_what_is_in_the_files(tmp_path) -> None:
    tensors, keys = set(), set()
    for kind in CONSTANTS:
        out = tmp_path / kind
        cpsae.export(make_run(tmp_path / f"{kind}-run", kind), "safetensors", out)
        tensors |= load_file(out / "autoencoder.safetensors").keys()
        keys |= json.loads((out / "autoencoder.json").read_text()).keys()
        assert {file.name for file in out.iterdir()} == {
            plain.WEIGHTS,
            plain.DESCRIPTION,
            "README.md",
        }
    tables = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", " ".join(tables))) == tensors | keys


def test_decoder_rows_are_of_norm_one_and_enabled_ones_alone(tmp_path) -> None:
    cpsae.export(make_run(tmp_path / "run"), "safetensors", tmp_path / "out")
    w = load_file(tmp_path / "out/autoencoder.safetensors")
    assert w["W_dec"].shape == (M, D)
    assert torch.allclose(w["W_dec"].norm(dim=1), torch.ones(M), atol=1e-6)


def test_equal_runs_give_equal_bytes(tmp_path) -> None:
    run = make_run(tmp_path / "run", "gated")
    for target in ("safetensors", "sae-lens", "dictionary-learning"):
        first, _ = (cpsae.export(run, target, tmp_path / f"{target}-{i}") for i in (1, 2))
        for name in first.files.contents:
            one, other = (tmp_path / f"{target}-{i}" / name for i in (1, 2))
            assert one.read_bytes() == other.read_bytes()
