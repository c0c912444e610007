"""Several sites in one pass: each store is what plain hooks give, and what a pass for it alone
writes; parts of a block sum to its output; kills leave no trace."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from families import by_hooks, save
from tiny import TOKENS, content_of

from cpsae.config import ExtractSettings
from cpsae.config.extraction import POINTS
from cpsae.errors import DifferentSettingsError, ModelError, SettingsError, StoreError
from cpsae.events import Advanced, Started
from cpsae.stages.extract import extract
from cpsae.store import open_store, stores_in, verify_store

FAMILIES = [
    *("gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "mistral", "phi", "opt", "falcon"),
    *("gemma", "gemma2", "gemma3_text", "bert"),
]


@pytest.fixture(scope="session")
def family(gemma, tmp_path_factory):
    """family(kind) gives the folder of a small random model, made once."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = save(kind, tmp_path_factory.mktemp(kind), gemma)
        return made[kind]

    return make


@pytest.fixture
def sites(family, settings):
    """sites(kind, key=value, ...) of blocks 1 and 3 with all four hooks."""

    def make(kind, **changes):
        values = {"layer": "1,3", "hook": ",".join(POINTS), "vectors": 400}
        return settings(**{"model": str(family(kind)), **values, **changes})

    return make


def rows_of(path):
    """Rows (contexts, R, d) of the training part, in float32."""
    store = open_store(path)
    rows = np.concatenate(list(store.training.batches(100))).astype(np.float32)
    whole = len(rows) // (TOKENS - 1) * (TOKENS - 1)
    return store, rows[:whole].reshape(-1, TOKENS - 1, rows.shape[1])


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_store_is_what_plain_hooks_give_and_the_parts_sum(sites, family, kind):
    done = extract(sites(kind, store_dtype="float32"))
    assert [path.name for path in done.stores] == [
        f"{layer}.{point}.zarr" for layer in (1, 3) for point in POINTS
    ]
    for layer in (1, 3):
        rows = {}
        for point in POINTS:
            store, rows[point] = rows_of(done.path / f"{layer}.{point}.zarr")
            assert (store.manifest.hook.layer, store.manifest.hook.name) == (layer, point)
            assert verify_store(store.path).problems == []
        tokens = torch.from_numpy(store.training.tokens(range(len(rows["resid_pre"])))).long()
        expected = by_hooks(family(kind), tokens, layer)
        for point in POINTS:
            right = expected[point][:, 1:].numpy()
            assert np.abs(rows[point] - right).max() <= 1e-5 * np.abs(right).max(), point
        if kind != "bert":
            total = rows["resid_pre"] + rows["attn_out"] + rows["mlp_out"]
            difference = np.abs(total - rows["resid_post"]).max()
            assert difference <= 1e-5 * np.abs(rows["resid_post"]).max()


@pytest.mark.parametrize("kind", ["llama", "gemma2", "falcon", "opt"])
def test_each_store_is_that_of_a_pass_for_it_alone_byte_for_byte(sites, tmp_path, kind):
    several = extract(sites(kind, hook="resid_pre,mlp_out"))
    for layer in (1, 3):
        for point in ("resid_pre", "mlp_out"):
            alone = tmp_path / f"{layer}.{point}"
            extract(sites(kind, layer=layer, hook=point, store=str(alone)))
            assert content_of(several.path / f"{layer}.{point}.zarr") == content_of(alone)


def test_blocks_that_norm_the_sum_give_what_is_added_before(sites, family):
    done = extract(sites("opt_post_norm", store_dtype="float32"))
    for point in POINTS:
        store, rows = rows_of(done.path / f"3.{point}.zarr")
        tokens = torch.from_numpy(store.training.tokens(range(len(rows)))).long()
        right = by_hooks(family("opt_post_norm"), tokens, 3)[point][:, 1:].numpy()
        assert np.abs(rows - right).max() <= 1e-5 * np.abs(right).max(), point


def test_in_bfloat16_too(sites):
    done = extract(sites("gemma2", dtype="bfloat16"))
    assert len(done.stores) == 8


def test_what_is_missing_in_any_store_is_computed_and_the_rest_left_alone(sites):
    chosen = sites("llama", vectors=1500)
    done = extract(chosen)
    before = content_of(done.path)
    for name, keys in {
        "1.attn_out.zarr": ["activations/c/0/0", "activations/c/1/0"],
        "3.resid_post.zarr": ["activations/c/1/0", "statistics/norms/c/0"],
    }.items():
        unmark(done.path / name)
        for key in keys:
            (done.path / name / key).unlink()
    heard = []
    again = extract(chosen, heard.append)
    assert again.computed_chunks == 2
    assert content_of(done.path) == before
    (started,) = (e for e in heard if isinstance(e, Started) and e.work == "extract")
    assert (started.total, [e for e in heard if isinstance(e, Advanced)][-1].done) == (1650, 1650)


def unmark(store):
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["cpsae"]["complete"] = False
    (store / "zarr.json").write_text(json.dumps(document))


def test_more_sites_join_a_folder_and_need_no_corpus(sites, corpus, tmp_path):
    copy = tmp_path / "corpus.jsonl"
    copy.write_bytes(corpus.read_bytes())
    first = extract(sites("llama", dataset=str(copy), hook="resid_post"))
    before = content_of(first.path)
    copy.unlink()
    more = extract(sites("llama", dataset=str(copy), hook="resid_post,attn_out"))
    assert {k: v for k, v in content_of(more.path).items() if "resid_post" in k} == before
    copy.write_bytes(corpus.read_bytes())
    for layer in (1, 3):
        place = {"store": str(tmp_path / f"{layer}"), "dataset": str(copy)}
        alone = sites("llama", layer=layer, hook="attn_out", **place)
        extract(alone)
        joined, own = (
            content_of(more.path / f"{layer}.attn_out.zarr"),
            content_of(tmp_path / f"{layer}"),
        )
        del joined["provenance.json"], own["provenance.json"]  # the corpus is another file by now
        assert joined == own


def test_more_sites_of_another_model_are_refused(sites, family, tmp_path):
    from transformers import AutoModel

    first = extract(sites("llama", hook="resid_post"))
    before = content_of(first.path)
    other = tmp_path / "other"
    model = AutoModel.from_pretrained(family("llama"))
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight[0, 0] += 1
    model.save_pretrained(other)
    for file in family("llama").glob("tokenizer*"):
        (other / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DifferentSettingsError, match="model: "):
        extract(sites("llama", hook="resid_post,attn_out", model=str(other)))
    assert content_of(first.path) == before


def test_sites_that_join_take_the_tokens_of_any_store_beside_them(sites, corpus, tmp_path):
    copy = tmp_path / "corpus.jsonl"
    copy.write_bytes(corpus.read_bytes())
    first = extract(sites("llama", dataset=str(copy), hook="resid_post"))
    alone = tmp_path / "alone"
    extract(sites("llama", dataset=str(copy), layer=1, hook="mlp_out", store=str(alone)))
    copy.unlink()
    extract(sites("llama", dataset=str(copy), hook="mlp_out"))
    assert content_of(first.path / "1.mlp_out.zarr") == content_of(alone)


@pytest.mark.parametrize("fresh", [False, True])
def test_sites_of_other_rows_do_not_join(sites, fresh):
    first = extract(sites("gpt2", hook="resid_post"))
    before = content_of(first.path)
    with pytest.raises(DifferentSettingsError, match="resid_post.*seed: 0, not 1.*another --store"):
        extract(sites("gpt2", hook="attn_out", seed=1), fresh=fresh)
    assert content_of(first.path) == before


def test_a_folder_in_the_users_own(sites, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    done = extract(sites("gpt2", hook="resid_post", store="~/acts"))
    assert done.path == tmp_path / "home/acts"
    assert not (tmp_path / "~").exists()


def test_killed_and_completed_is_unbroken(sites, tmp_path):
    chosen = sites("llama", vectors=6000)
    code = (
        "import sys; from cpsae.config import ExtractSettings\n"
        "from cpsae.stages.extract import extract\n"
        "extract(ExtractSettings.model_validate_json(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, chosen.model_dump_json()]
    place = tmp_path / "acts.zarr"
    kills = 0
    for number in (1, 12, 30):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(place.rglob("activations/c/*/0"))) < number:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    subprocess.run(command, check=True)
    whole = extract(sites("llama", vectors=6000, store=str(tmp_path / "whole")))
    assert content_of(place) == content_of(whole.path)


def test_two_workers_give_the_bytes_of_one(sites, tmp_path, monkeypatch):
    import threading

    from cpsae.workers import Worker

    monkeypatch.delenv("OMP_NUM_THREADS")  # several workers take 1 for torchrun's, one for its own
    chosen, results = sites("gpt2", vectors=1500), {}
    follower = threading.Thread(
        target=lambda: results.update(one=extract(chosen, worker=Worker(1, 2, 1)))
    )
    follower.start()
    results["zero"] = extract(chosen, worker=Worker(0, 2, 0))
    follower.join()
    assert min(result.computed_chunks for result in results.values()) >= 1
    whole = extract(sites("gpt2", vectors=1500, store=str(tmp_path / "whole")))
    assert content_of(results["zero"].path) == content_of(whole.path)


def test_a_complete_folder_says_so_without_the_model(sites, monkeypatch):
    chosen = sites("gpt2")
    extract(chosen)
    monkeypatch.setattr("cpsae.extraction.plan.find_source", lambda *_: pytest.fail("looked"))
    heard = []
    assert extract(chosen, heard.append).computed_chunks == 0
    assert [note.text for note in heard] == [f"{chosen.store} is complete"]


def test_other_settings_are_refused_and_fresh_renames_each(sites):
    extract(sites("gpt2", hook="resid_post"))
    with pytest.raises(DifferentSettingsError, match="seed: 0, not 1"):
        extract(sites("gpt2", hook="resid_post", seed=1))
    done = extract(sites("gpt2", hook="resid_post", seed=1), fresh=True)
    assert (done.path / "1.resid_post.zarr.old-1").is_dir()
    assert len(stores_in(done.path)) == 2


@pytest.mark.parametrize("kind", ["bloom", "granite"])
def test_modules_that_give_something_else_than_what_is_added(sites, tmp_path, kind):
    with pytest.raises(ModelError, match="has resid_pre and resid_post alone.*not what is added"):
        extract(sites(kind))
    assert not (tmp_path / "acts.zarr").exists()
    assert len(extract(sites(kind, hook="resid_pre,resid_post")).stores) == 4


def test_a_point_that_is_not_found(sites, tmp_path, monkeypatch):
    monkeypatch.setattr("cpsae.models.sites._MLP", ("nothing",))
    with pytest.raises(ModelError, match="hook mlp_out: .* alone .no such module is found"):
        extract(sites("llama"))
    assert not (tmp_path / "acts.zarr").exists()


def test_a_store_is_no_folder_of_stores_nor_the_other_way_round(sites, tmp_path):
    one = extract(sites("gpt2", layer=1, hook="resid_post", store=str(tmp_path / "one")))
    with pytest.raises(StoreError, match="is the store of one site"):
        extract(sites("gpt2", store=str(one.path)))
    many = extract(sites("gpt2", hook="resid_post", store=str(tmp_path / "many")))
    with pytest.raises(StoreError, match="is a folder of stores .1.resid_post.zarr, 3.resid_post"):
        extract(sites("gpt2", layer=1, hook="resid_post", store=str(many.path)))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/a.tex").touch()
    with pytest.raises(StoreError, match="is no folder of stores"):
        extract(sites("gpt2", store=str(tmp_path / "thesis")))
    with pytest.raises(SettingsError, match="expected a local folder"):
        extract(sites("gpt2", store="ftp://host/acts"))


@pytest.mark.parametrize(
    ("layer", "hook", "expected"),
    [
        (19, "resid_post", [(19, "resid_post")]),
        ("19", ["resid_post"], [(19, "resid_post")]),
        ("12, 5", "mlp_out,resid_pre", [(5, "resid_pre"), (5, "mlp_out")]),
        ([5], ("attn_out",), [(5, "attn_out")]),
    ],
)
def test_sites_come_by_layer_and_place(layer, hook, expected):
    found = ExtractSettings(layer=layer, hook=hook).sites
    assert found[: len(expected)] == expected
    assert len(found) == len(str(layer).split(",")) * len(
        hook.split(",") if isinstance(hook, str) else hook
    )
