import json

import google_crc32c
import numpy as np
import pytest
import reference
import safetensors.torch
import torch

import cpsae
from cpsae.errors import RunError
from cpsae.sae.autoencoder import SparseAutoencoder, load
from cpsae.sae.initialization import initialize
from cpsae.sae.kind import STANDARD, RunPlan
from cpsae.sae.kinds import kind_names, load_kind
from cpsae.sae.normalization import InputError, Normalizer
from cpsae.training.settings import FitSettings

D, N, M = 10, 16, 11
HOOK = {"layer": 19, "name": "resid_post"}


def parameters(seed=0, specs=STANDARD):
    generator = torch.Generator().manual_seed(seed)
    return {
        **initialize(specs, D, N, "uniform", seed=seed),
        "b_enc": torch.randn(N, generator=generator) * 0.1,
        "b_dec": torch.randn(D, generator=generator) * 0.1,
    }


def rule(kind):
    own = {"k": 3} if "topk" in kind else {}
    return load_kind(kind)(FitSettings(kind=kind, **own).method, RunPlan(D, N))


def autoencoder(kind="competitive", normalize="layer", m=M):
    return SparseAutoencoder.from_training(
        parameters(specs=rule(kind).weights),
        rule(kind),
        n_enabled=m,
        normalizer=Normalizer.from_statistics(normalize, D, mean_squared_norm=9.0, mean_norm=2.9),
        hook=HOOK,
    )


def vectors(*shape):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(5)) * 4 + 1


@pytest.mark.parametrize("normalize", ["layer", "layer-variance", "unit", "sqrt-d", "none"])
def test_encode_and_decode_equal_the_reference(normalize):
    sae, x = autoencoder(normalize=normalize), vectors(6)
    w_enc, b_enc, w_dec, b_dec = (
        parameters()[name].double().numpy() for name in ("w_enc", "b_enc", "w_dec", "b_dec")
    )
    a, x_hat = sae.encode(x), sae(x)
    for i, raw in enumerate(x.double().numpy()):
        mean = raw.mean() if "layer" in normalize else 0.0
        norm = np.linalg.norm(raw - mean)
        scale = {
            "layer": norm,
            "layer-variance": norm / np.sqrt(D),
            "unit": 3.0,
            "sqrt-d": 2.9 / np.sqrt(D),
            "none": 1.0,
        }[normalize]
        f = reference.encoder(w_enc[:M], b_enc[:M], (raw - mean) / scale)
        expected = reference.alpha(f, 0.3)
        np.testing.assert_allclose(a[i, :M].numpy(), expected, rtol=1e-4, atol=1e-6)
        decoded = (w_dec[:M].T @ expected + b_dec) * scale + mean
        np.testing.assert_allclose(x_hat[i].numpy(), decoded, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", kind_names())
@pytest.mark.parametrize("shape", [(), (7,), (2, 5)])
def test_any_leading_shape(kind, shape):
    sae, x = autoencoder(kind), vectors(*shape)
    a = sae.encode(x)
    assert a.shape == (*shape, N)
    assert not a[..., M:].any()
    assert sae.decode(a, like=x).shape == x.shape
    assert torch.equal(sae(x), sae.decode(a, like=x))
    flat = sae.encode(x.reshape(-1, D))
    torch.testing.assert_close(flat, a.reshape(-1, N), rtol=1e-5, atol=1e-6)


def test_disabled_features_take_no_part():
    sae, x = autoencoder(m=M), vectors(4)
    a, x_hat = sae.encode(x), sae(x)
    sae.W_enc[:, M:] = 100.0
    sae.b_enc[M:] = 100.0
    sae.W_dec[M:] = 100.0
    assert torch.equal(sae.encode(x), a)
    assert torch.equal(sae(x), x_hat)


def test_shares_nothing_and_asks_for_no_gradients():
    weights, kind = parameters(), rule("competitive")
    sae = SparseAutoencoder.from_training(weights, kind, n_enabled=M, normalizer=Normalizer("none"))
    before = sae(vectors(3))
    for tensor in weights.values():
        tensor.zero_()
    kind.tensors["temperature"].fill_(0.05)
    assert torch.equal(sae(vectors(3)), before)
    assert not before.requires_grad
    assert not sae.training
    assert sae.d == D
    assert sae.n_latents == N


def test_wrong_shapes_are_one_clear_line():
    sae = autoencoder()
    with pytest.raises(InputError, match=r"\(3, 9\) do not fit.*\(\.\.\., 10\)"):
        sae.encode(torch.zeros(3, 9))
    with pytest.raises(InputError, match=r"\(3, 11\) do not fit.*\(\.\.\., 16\)"):
        sae.decode(torch.zeros(3, 11), like=vectors(3))
    with pytest.raises(InputError, match="like=x"):
        sae.decode(torch.zeros(3, N))
    assert autoencoder(normalize="unit").decode(torch.zeros(3, N)).shape == (3, D)


@pytest.mark.parametrize("kind", kind_names())
def test_saved_and_loaded_is_the_same(kind, tmp_path):
    sae, x = autoencoder(kind), vectors(8)
    sae.save(tmp_path / "a")
    again = cpsae.load(tmp_path / "a")
    assert torch.equal(again(x), sae(x))
    assert torch.equal(again.encode(x), sae.encode(x))
    assert again.hook == HOOK
    again.save(str(tmp_path / "b"))
    for name in ("sae.safetensors", "sae.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["sae.json", "sae.safetensors"]


def test_files_are_as_documented(tmp_path):
    autoencoder().save(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "sae.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "W_enc": (D, N),
        "b_enc": (N,),
        "W_dec": (N, D),
        "b_dec": (D,),
    }
    assert all(t.dtype == torch.float32 for t in tensors.values())
    length = int.from_bytes((tmp_path / "sae.safetensors").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "sae.safetensors").read_bytes()[8 : 8 + length])
    assert "__metadata__" not in header
    text = (tmp_path / "sae.json").read_text()
    described = json.loads(text)
    assert list(described) == sorted(described)
    checksum = described.pop("checksum")
    weights = google_crc32c.value((tmp_path / "sae.safetensors").read_bytes())
    assert checksum == f"{google_crc32c.value(json.dumps([weights, described]).encode()):08x}"
    assert described == {
        "kind": "competitive",
        "d": D,
        "n_latents": N,
        "n_enabled": M,
        "temperature": 0.3,
        "over": "enabled",
        "normalization": {"name": "layer"},
        "hook": HOOK,
    }


def test_a_flipped_bit_is_found(tmp_path):
    sae = autoencoder()
    for name in ("sae.safetensors", "sae.json"):
        sae.save(tmp_path)
        path = tmp_path / name
        content = path.read_bytes()
        for at in range(0, len(content), 1 if name == "sae.json" else 7):
            raw = bytearray(content)
            raw[at] ^= 1 << at % 7
            path.write_bytes(raw)
            try:
                loaded = cpsae.load(tmp_path)
            except RunError as error:
                assert "\n" not in str(error)
            else:  # white space, or a name that is written in another way
                assert name == "sae.json" and loaded.description() == sae.description()
        path.write_bytes(content)


def test_what_an_earlier_version_wrote_has_no_checksum(tmp_path):
    autoencoder().save(tmp_path)
    edit(tmp_path, checksum=None)
    assert cpsae.load(tmp_path).n_enabled == M


def edit(folder, **changes):
    path = folder / "sae.json"
    described = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in described.items() if value is not None}
    path.write_text(json.dumps(kept))


def cut(folder):
    path = folder / "sae.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def transpose(folder):
    tensors = safetensors.torch.load_file(folder / "sae.safetensors")
    tensors["W_dec"] = tensors["W_dec"].T.contiguous()
    safetensors.torch.save_file(tensors, folder / "sae.safetensors")


def drop(folder):
    tensors = safetensors.torch.load_file(folder / "sae.safetensors")
    del tensors["b_enc"]
    safetensors.torch.save_file(tensors, folder / "sae.safetensors")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda f: (f / "sae.safetensors").unlink(), "has no sae.safetensors"),
        (lambda f: (f / "sae.json").unlink(), "has no sae.json"),
        (lambda f: (f / "sae.json").write_text("{"), "is not readable JSON"),
        (lambda f: (f / "sae.json").write_bytes(b"\xff\xfe"), "is not readable JSON"),
        (lambda f: (f / "sae.json").write_text("[]"), "expected a JSON object"),
        (lambda f: edit(f, kind="nope"), "no kind of SAE is called 'nope'"),
        (lambda f: edit(f, kind=None), "has no 'kind'"),
        (lambda f: edit(f, n_enabled=17), "n_enabled is 17"),
        (lambda f: edit(f, n_enabled="4"), "n_enabled is '4'"),
        (lambda f: edit(f, d=11), r"W_enc has shape \(10, 16\), but d = 11 and n = 16 go with"),
        (lambda f: edit(f, n_latents=10**15), "make no autoencoder"),
        (lambda f: edit(f, n_latents=10**30), "make no autoencoder"),
        (lambda f: edit(f, n_latents=-3), "make no autoencoder"),
        (lambda f: edit(f, kind="topk", k=3, n_latents=10**15), "make no autoencoder"),
        (lambda f: edit(f, temperature="hot"), "make no autoencoder"),
        (lambda f: edit(f, temperature=None), "has no 'temperature'"),
        (lambda f: edit(f, normalization=3), "make no autoencoder"),
        (lambda f: edit(f, hook=3), "make no autoencoder"),
        (lambda f: edit(f, temperature=0.31), "are not as they were written: their checksum is"),
        (lambda f: edit(f, checksum="0"), "restore them, or take 'checksum' out of sae.json"),
        (lambda f: edit(f, sharpness=2), "holds sharpness, which this version does not know; up"),
        (cut, "cannot be read"),
        (transpose, r"W_dec has shape \(10, 16\)"),
        (drop, "has no tensor b_enc"),
    ],
)
def test_damage_is_one_line_that_names_the_folder(damage, text, tmp_path):
    autoencoder().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(RunError, match=text) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_folder(tmp_path):
    with pytest.raises(RunError, match="no such folder"):
        load(tmp_path / "absent")
