"""Settings given from Python: paths as paths, and the one line that the command gives."""

from pathlib import Path

import numpy as np
import pytest

import cpsae
from cpsae.config import ExtractSettings, resolve
from cpsae.errors import CpsaeError, SettingsError
from cpsae.sae.batch_topk import TopKSettings
from cpsae.training.recipes import resolve_fit
from cpsae.training.settings import FitSettings


@pytest.mark.parametrize("key", ["model", "dataset", "store"])
def test_a_path_is_a_setting(key) -> None:
    given = ExtractSettings(**{key: Path("a") / "b c"})
    assert given == ExtractSettings(**{key: "a/b c"})
    assert getattr(given, key) == "a/b c"


def test_every_stage_takes_paths(tmp_path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    store = cpsae.write_store(tmp_path / "acts.zarr", rows)
    settings = FitSettings(steps=2, batch_size=16, device="cpu")
    run = cpsae.fit(Path(store), settings, out=tmp_path / "run").path
    assert cpsae.open_store(Path(store)).d == cpsae.load(Path(run)).d == 8
    assert cpsae.evaluate(Path(run), Path(store)).metrics
    assert not cpsae.verify_store(Path(store)).problems


WRONG = [
    (ExtractSettings, {"tokens": 1}, "tokens = 1: expected 2 or more"),
    (ExtractSettings, {"dtype": "int8"}, "dtype = 'int8': expected 'auto'"),
    (ExtractSettings, {"model": 3}, "model = 3"),
    (ExtractSettings, {"quux": 3}, "quux = 3"),
    (ExtractSettings, {"layer": "x", "seed": -1}, "layer = 'x'"),
    (FitSettings, {"lr": -1}, "lr = -1: expected more than 0"),
    (FitSettings, {"max_norm": 0.5}, "max_norm = 0.5: expected 0"),
    (FitSettings, {"kind": "topk", "k": 0}, "k = 0: expected 1 or more"),
    (FitSettings, {"kind": "none"}, "none"),
    (TopKSettings, {"k": 0}, "k = 0: expected 1 or more"),
]


@pytest.mark.parametrize(("settings", "values", "text"), WRONG)
def test_wrong_settings_are_the_command_s_one_line(settings, values, text) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(**values)
    assert isinstance(raised.value, CpsaeError)
    assert text in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(("settings", "values", "text"), [WRONG[0], WRONG[5], WRONG[7]])
def test_a_command_still_says_where_a_value_is_from(settings, values, text) -> None:
    with pytest.raises(SettingsError) as raised:
        if settings is FitSettings:
            resolve_fit({"--set": values})
        else:
            resolve(settings, {"--set": values})
    assert text.replace(":", " (from --set):") in str(raised.value)


@pytest.mark.parametrize("encoding", ["idna", "punycode", "unicode_escape", "base64", "nonsense"])
def test_what_is_no_encoding_of_files(encoding: str) -> None:
    with pytest.raises(SettingsError, match="expected an encoding that Python knows"):
        ExtractSettings(encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf_32", "cp1251", "shift_jis", "latin-1"])
def test_what_is_an_encoding_of_files(encoding: str) -> None:
    """Also those of which a file's own mark tells the rest."""
    assert ExtractSettings(encoding=encoding).encoding == encoding
