"""`cpsae extract`: results, repeats, and a line for every bad input."""

import json
import shlex
import shutil
import subprocess

import pytest
import torch
from refusals import GATED, assert_refused
from tiny import content_of


@pytest.fixture
def extract(command, gemma, corpus, tmp_path):
    """extract(*options) with a small model and corpus; later options win."""

    def run(*options: object):
        given = ("--model", gemma, "--dataset", corpus, "--store", tmp_path / "acts.zarr")
        small = ("--layer", 0, "--tokens", 16, "--vectors", 300, "--device", "cpu")
        return command("extract", *given, *small, *options)

    return run


def test_a_store_and_what_to_do_next(extract, tmp_path) -> None:
    done = extract()
    store = tmp_path / "acts.zarr"
    assert done.code == 0
    assert done.out == (
        f"{store}: 300 vectors and 30 held out, d = 32; next: cpsae fit --store {store}\n"
    )
    assert "self-test: truncated and whole model are equal bit for bit" in done.err
    before = content_of(store)
    again = extract()
    assert (again.code, again.out, again.err) == (0, done.out, f"{store} is complete\n")
    assert content_of(store) == before


@pytest.mark.parametrize("name", ["a b.zarr", "it's.zarr", "$HOME;echo.zarr", "a*(1).zarr"])
def test_the_next_command_can_be_pasted(extract, tmp_path, name) -> None:
    store = tmp_path / name
    line = extract("--store", store).out.strip()
    pasted = line.partition("; next: ")[2]
    assert shlex.split(pasted) == ["cpsae", "fit", "--store", str(store)]
    echoed = subprocess.run(
        ["bash", "-c", f"cpsae() {{ printf '%s' \"$3\"; }}; {pasted}"],
        capture_output=True,
        text=True,
    )
    assert echoed.stdout == str(store)


def test_json_is_one_object_and_all_of_standard_output(extract, tmp_path) -> None:
    done = extract("--json")
    content = json.loads(done.out)
    assert content["path"] == str(tmp_path / "acts.zarr")
    assert content["complete"] is True
    assert (content["vectors"], content["evaluation_vectors"], content["d"]) == (300, 30, 32)
    assert json.loads(extract("--json").out)["computed_chunks"] == 0


def test_quiet_and_verbose(extract, tmp_path) -> None:
    assert extract("-q").err == ""
    shutil.rmtree(tmp_path / "acts.zarr")
    plain = extract().err
    assert "first context begins" not in plain
    shutil.rmtree(tmp_path / "acts.zarr")
    assert "first context begins: '<bos> w" in extract("-v").err


def test_progress_is_plain_lines_where_there_is_no_terminal(extract) -> None:
    lines = extract().err.splitlines()
    (line,) = (line for line in lines if line.startswith("extract: "))
    assert line.startswith("extract: 330 of 330 vectors (100%), ")
    assert "\r" not in line and "\x1b" not in line


@pytest.mark.parametrize(("text", "vectors"), [("0.2k", 200), ("1_0_0", 100), ("100", 100)])
def test_counts_take_suffixes(extract, text, vectors) -> None:
    assert json.loads(extract("--vectors", text, "--json").out)["vectors"] == vectors


def test_a_recipe_gives_settings_and_options_win(command, gemma, corpus, tmp_path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        f'model = "{gemma}"\ndataset = "{corpus}"\nlayer = 1\ntokens = 16\nvectors = "0.2k"\n'
        f'store = "{tmp_path / "r.zarr"}"\ndevice = "cpu"\nkeep_bos = true\n'
    )
    done = command("extract", "--recipe", recipe, "--json")
    assert json.loads(done.out)["vectors"] == 200
    attributes = json.loads((tmp_path / "r.zarr/zarr.json").read_text())["attributes"]["cpsae"]
    assert (attributes["hook"]["layer"], attributes["contexts"]["rows"]) == (1, 16)
    other = command("extract", "--recipe", recipe, "--layer", 2)
    assert "layer: 1, not 2" in other.err


def test_fresh_renames_aside(extract, tmp_path) -> None:
    extract()
    before = content_of(tmp_path / "acts.zarr")
    done = extract("--fresh", "--seed", 1)
    assert done.code == 0
    assert f"acts.zarr is kept as {tmp_path / 'acts.zarr.old-1'}" in done.err
    assert content_of(tmp_path / "acts.zarr.old-1") == before


def test_brackets_in_a_path_are_no_markup(extract, tmp_path) -> None:
    store = tmp_path / "[bold]:smile:.zarr"
    assert extract("--store", store).out.startswith(f"{store}: 300 vectors")


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--layer", 26], 1, r"layer 26: .* has 26 blocks, so --layer takes 0 to 25"),
        (["--layer", -1], 2, r"layer = '-1' \(from option\): expected block numbers, counted"),
        (["--layer", "x"], 2, r"layer = 'x' \(from option\): expected block numbers, counted fr"),
        (["--layer", "1,"], 2, r"layer = '1,' \(from option\): expected block numbers, counted"),
        (["--layer", "1,2,1"], 2, r"layer 1 with hook resid_post is given twice"),
        (
            ["--hook", "resid_mid"],
            2,
            r"hook = 'resid_mid' .*: expected one or more of resid_pre,",
        ),
        (["--hook", "attn_out,attn_out"], 2, r"layer 0 with hook attn_out is given twice"),
        (["--store", "ftp://host/a.zarr"], 2, r"--store ftp://host/a.zarr: expected a local fol"),
        (["--tokens", 0], 2, r"tokens = 0 \(from option\): expected 2 or more"),
        (["--tokens", 65], 1, r"tokens 65: .* reads at most 64 tokens a context"),
        (["--vectors", 0], 2, r"vectors = 0 \(from option\): expected 1 or more"),
        (["--vectors", "10X"], 2, r"vectors = '10X' .* is no count: write a whole number, or one"),
        (["--vectors", "1.5"], 2, r"vectors = '1.5' .* is not a whole number"),
        (
            ["--vectors", "1000000B"],
            1,
            r"acts.zarr: the store takes .* GB more and .* stay free, the disk has",
        ),
        (
            ["--vectors", "1M"],
            1,
            r"its 28,200 tokens in 400 documents give at most 25,935 v",
        ),
        (["--seed", -1], 2, r"seed = '-1' \(from option\): expected 0 or more"),
        (["--dtype", "int8"], 2, r"dtype = 'int8' \(from option\): .*'bfloat16'"),
        (["--store-dtype", "auto"], 2, r"store_dtype = 'auto' \(from option\): .*'float32'"),
        (["--device", "tpu"], 2, r"device = 'tpu' \(from option\)"),
        (["--attention", "best"], 2, r"attention = 'best' \(from option\)"),
        (["--attention", "sdpa"], 1, r"has attention soft-capping, which sdpa cannot do; take"),
        (["--batch-contexts", 3], 1, r"batch_contexts 3 does not divide the 64 contexts"),
        (["--batch-contexts", 0], 2, r"batch_contexts = '0' \(from option\)"),
        (["--store", "s3://me:x@b/a.zarr"], 2, r"--store s3://\*\*\*@b/a.zarr: holds credentials"),
        (["--store", ""], 2, r"store = '' \(from option\)"),
        (["--model", "/no/such/model"], 1, r"model /no/such/model: there is no such file or fol"),
        (["--model", "no/such/model.gguf"], 1, r"model no/such/model.gguf: there is no such"),
        (["--revision", "main"], 1, r"a local model has no revisions; leave --revision out"),
        (["--dataset", "/no/such/text"], 1, r"dataset /no/such/text: there is no such file or"),
        (["--recipe", "/no/such.toml"], 1, r"recipe /no/such.toml: cannot be read"),
        (["--layers", 3], 2, r"No such option.*--layer"),
        (["--layer"], 2, r"Option '--layer' requires an argument"),
        (["surplus"], 2, r"[Uu]nexpected extra argument"),
    ],
)
def test_bad_options(extract, tmp_path, options, code, text) -> None:
    assert_refused(lambda: extract(*options), tmp_path, code, text)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(extract, tmp_path) -> None:
    text = r"device 'cuda': torch sees no CUDA GPU; take cpu, or "
    assert_refused(lambda: extract("--device", "cuda"), tmp_path, 1, text)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("empty.txt", "", r"empty.txt: holds no text"),
        ("blank.jsonl", '{"text": " "}\n', r"blank.jsonl: holds no text"),
        ("broken.jsonl", '{"text": "a"}\n{"text": \n', r"broken.jsonl, line 2: is not JSON"),
        ("list.jsonl", "[1]\n", r"list.jsonl, line 1: expected an object with a field 'text'"),
        ("other.jsonl", '{"body": "a"}\n', r"line 1: has no field 'text' \(there are: body\)"),
        ("number.jsonl", '{"text": 1}\n', r"expected text in the field 'text', found a number"),
        ("short.txt", "w1 w2 w3\n", r"short.txt is too small: its 3 tokens in one document "),
        ("text.parquet", "w1", r"text.parquet: is not a whole Parquet file"),
    ],
)
def test_bad_corpora(extract, tmp_path, name, content, text) -> None:
    (tmp_path / name).write_text(content)
    assert_refused(lambda: extract("--dataset", tmp_path / name), tmp_path, 1, text)


def test_a_gated_model(extract, tmp_path, monkeypatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> str:
        raise GATED

    monkeypatch.setattr("cpsae.models.source._knock", lambda *_: None)
    monkeypatch.setattr("cpsae.models.source.hf_hub_download", refuse)
    text = r"model google/gemma-2-2b: is gated: accept its terms on the hub, then `hf auth login`"
    assert_refused(lambda: extract("--model", "google/gemma-2-2b"), tmp_path, 1, text)


def test_a_model_out_of_reach(extract, tmp_path, monkeypatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> str:
        raise ConnectionError

    monkeypatch.setattr("cpsae.models.source._knock", refuse)
    text = r"model no-one/nothing: is not in the local cache and the hub cannot be reached; check"
    assert_refused(lambda: extract("--model", "no-one/nothing"), tmp_path, 1, text)


def test_a_weight_that_is_no_number(extract, gemma, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    broken = tmp_path / "broken"
    shutil.copytree(gemma, broken)
    model = AutoModelForCausalLM.from_pretrained(gemma)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(broken)
    text = r"layer 0 of .*broken: NaN or Inf at \d+ of 16 positions"
    assert_refused(lambda: extract("--model", broken), tmp_path, 1, text)


def test_other_settings_list_each_difference(extract, tmp_path) -> None:
    extract()
    text = r"begun with other settings \(layer: 0, not 2; seed: 0, not 5\); give the same ones, an"
    assert_refused(lambda: extract("--layer", 2, "--seed", 5), tmp_path, 1, text)


def test_a_folder_or_file_that_is_no_store(extract, tmp_path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for place in (folder, folder / "notes.txt"):
        text = r"is there already and is no store; choose another --store"
        for fresh in ([], ["--fresh"]):
            assert_refused(lambda p=place, f=fresh: extract("--store", p, *f), tmp_path, 1, text)
    text = r"a file is in the way of a folder; move it aside"
    inside = folder / "notes.txt" / "acts.zarr"
    assert_refused(lambda: extract("--store", inside), tmp_path, 1, text)


def test_broken_metadata(extract, tmp_path) -> None:
    extract()
    (tmp_path / "acts.zarr/zarr.json").write_text('{"zarr_format": 3, ')
    assert_refused(extract, tmp_path, 1, r"acts.zarr/zarr.json: is not readable JSON")


def test_a_second_process(extract, tmp_path) -> None:
    from cpsae.locks import writer_lock

    with writer_lock(tmp_path / "acts.zarr", "store"):
        text = r"another process \(pid \d+\) is writing this store; wait until it ends or stop it"
        assert_refused(extract, tmp_path, 1, text)


def test_a_recipe_with_an_unknown_or_wrong_setting(extract, tmp_path) -> None:
    recipe = tmp_path / "recipe.toml"
    for line, text in (
        ("layr = 3", r"recipe .*recipe.toml: there is no setting 'layr': did you mean layer"),
        ("seed = -3", r"seed = -3 \(from recipe .*recipe.toml\): "),
        ("seed = ", r"recipe .*recipe.toml: is not well-formed"),
    ):
        recipe.write_text(line + "\n")
        assert_refused(lambda: extract("--recipe", recipe), tmp_path, 1, text)
