"""Exports pushed to a hub on this machine: every byte that arrives, one commit, refusals."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from hub_server import hub
from small_runs import make_run

import cpsae
from cpsae.errors import ExportError


@pytest.fixture
def server(monkeypatch):
    """One that the client in this process talks to, as somebody who is logged in."""
    from huggingface_hub import constants

    with hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        place = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + place)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield running


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def front_matter(card: bytes) -> dict:
    _, text, _ = card.decode().split("---\n", 2)
    return yaml.safe_load(text)


def test_the_folder_and_the_hub_get_the_same_bytes(server, tmp_path) -> None:
    run = make_run(tmp_path / "run")
    done = cpsae.export(run, "sae-lens", tmp_path / "out", push="ada/saes", private=True)
    assert server.commits == [files_of(tmp_path / "out")]
    assert done.pushed == f"{server.url}/ada/saes"
    assert (server.repos, server.messages) == ({"ada/saes": True}, ["cpsae export --to sae-lens"])
    assert server.lfs, "no file was large enough for LFS"
    about = front_matter(server.commits[0]["README.md"])
    assert about["library_name"] == "saelens" and about["base_model"] == "google/gemma-2-2b"
    assert "sparse-autoencoder" in about["tags"]
    assert about["datasets"] == ["monology/pile-uncopyrighted"]
    assert b"hf_secret" not in b"".join(server.commits[0].values())


def test_several_in_one_repository(server, tmp_path) -> None:
    run = make_run(tmp_path / "run")
    for folder in ("layer_19/a", "layer_19/b"):
        done = cpsae.export(run, "safetensors", push=f"ada/saes/{folder}")
        assert done.path is None and done.pushed == f"{server.url}/ada/saes/tree/main/{folder}"
    first, second = server.commits
    assert set(first) == {
        "README.md",  # the repository's own, which the second leaves alone
        "layer_19/a/README.md",
        "layer_19/a/autoencoder.json",
        "layer_19/a/autoencoder.safetensors",
    }
    assert set(second) == {name.replace("/a/", "/b/") for name in first if "/" in name}
    assert done.load == (
        'safetensors.torch.load_file(huggingface_hub.snapshot_download("ada/saes", '
        'allow_patterns="layer_19/b/*") + "/layer_19/b" + "/autoencoder.safetensors")'
    )


@pytest.mark.parametrize(
    ("part", "status", "text"),
    [
        ("repos/create", 401, "the hub does not know the token; run `hf auth login` again"),
        ("repos/create", 403, "the token may not write there; take one with write access"),
        ("repos/create", 400, "the hub answered 400"),
        ("preupload", 404, "the hub has no such place for this token"),
        ("objects/batch", 403, "the token may not write there"),
        ("commit/", 403, "the token may not write there"),
        ("commit/", 422, "the hub answered 422"),
    ],
)
def test_refusals_of_the_hub(server, tmp_path, part, status, text) -> None:
    run = make_run(tmp_path / "run")
    server.refusals[part] = status
    with pytest.raises(ExportError, match=f"--push ada/saes: {text}") as caught:
        cpsae.export(run, "sae-lens", tmp_path / "out", push="ada/saes")
    assert "\n" not in str(caught.value) and "hf_secret" not in str(caught.value)
    assert server.commits == [] and not (tmp_path / "out").exists()
    server.refusals.clear()
    cpsae.export(run, "sae-lens", tmp_path / "out", push="ada/saes")
    assert server.commits == [files_of(tmp_path / "out")]


def test_private_is_not_promised_of_a_public_repository(server, tmp_path) -> None:
    run = make_run(tmp_path / "run")
    server.repos["ada/saes"] = False
    with pytest.raises(ExportError, match="is there already and is public; make it private"):
        cpsae.export(run, "sae-lens", push="ada/saes", private=True)
    assert server.commits == []


def test_nobody_is_logged_in(server, tmp_path, monkeypatch) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ExportError, match="the hub knows nobody here; run `hf auth login` once"):
        cpsae.export(run, "sae-lens", push="ada/saes")
    assert server.tokens == set()


def test_the_command_as_the_environment_says(tmp_path) -> None:
    """HF_ENDPOINT and HF_TOKEN; then a hub that is gone."""
    make_run(tmp_path / "run")
    command = [sys.executable, "-m", "cpsae", "export", "run", "--to", "sae-lens", "--json"]
    command += ["--push", "ada/saes"]
    with hub() as server:
        set_ = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_abc", "HF_HUB_DISABLE_XET": "1"}
        environment = {**os.environ, **set_, "HF_HUB_OFFLINE": "0"}
        how: dict = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(command, **how)
        assert (done.returncode, done.stderr) == (0, "")
        content = json.loads(done.stdout)
        assert (content["path"], content["pushed"]) == (None, f"{server.url}/ada/saes")
        assert server.commits[0].keys() == set(content["files"])
        assert "Bearer hf_abc" in server.tokens
    done = subprocess.run(command, **how)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "error: --push ada/saes: the hub cannot be reached; check the network and HF_ENDPOINT; "
        "the same command again tries once more\n"
    )
    done = subprocess.run(command, **{**how, "env": {**environment, "HF_HUB_OFFLINE": "1"}})
    assert "HF_HUB_OFFLINE is set" in done.stderr and done.returncode == 1
