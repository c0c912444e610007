"""Keywords are the settings, one by one, and a wrong one is named with the nearest right one."""

import inspect
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest

import cpsae
from cpsae.api.keywords import ExtractKeywords, FitKeywords, RunKeywords, Text, Whole
from cpsae.api.settings import extract_settings, fit_settings
from cpsae.config import ExtractSettings, Settings
from cpsae.config.base import parse_count
from cpsae.errors import SettingsError
from cpsae.sae.competition import TemperatureSettings
from cpsae.sae.kinds import kind_names, load_kind
from cpsae.training.recipes import resolve_fit
from cpsae.training.settings import FitSettings


def kinds_fields():
    return {
        name: field
        for kind in kind_names()
        for name, field in load_kind(kind).Settings.model_fields.items()
    }


FIELDS = {
    ExtractKeywords: dict(ExtractSettings.model_fields),
    FitKeywords: {
        **{k: f for k, f in FitSettings.model_fields.items() if k != "method"},
        **kinds_fields(),
    },
}
KEYS = [(keywords, key) for keywords, fields in FIELDS.items() for key in fields]


@pytest.mark.parametrize("keywords", FIELDS)
def test_there_is_a_keyword_for_each_setting_and_no_other(keywords) -> None:
    assert set(keywords.__annotations__) == set(FIELDS[keywords])


def single(hint) -> set:
    """What a hint allows, piece by piece; sequences and groups by what they hold."""
    if get_origin(hint) in (Union, type(int | str)):
        return set().union(*map(single, get_args(hint)))
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    if get_origin(hint) is tuple or getattr(get_origin(hint), "__name__", "") == "Sequence":
        return {("several", *sorted(map(str, single(get_args(hint)[0]))))}
    if getattr(get_origin(hint), "__name__", "") == "Mapping" or (
        isinstance(hint, type) and issubclass(hint, Settings)
    ):
        return {"group"}
    return {hint}


def is_count(field) -> bool:
    texts = [*field.metadata, field.annotation]
    return any("parse_count" in str(text) for text in texts) or parse_count in [
        getattr(m, "func", None) for m in field.metadata
    ]


@pytest.mark.parametrize(("keywords", "key"), KEYS)
def test_a_keyword_is_of_its_settings_type(keywords, key) -> None:
    field = FIELDS[keywords][key]
    said, meant = single(get_type_hints(keywords)[key]), single(field.annotation)
    if "_path_as_text" in str(field.metadata):
        assert said == single(Text)
    elif is_count(field):
        assert said - {type(None)} == single(Whole)
        assert (type(None) in said) == (type(None) in meant or field.default is None)
    elif key == "layer":
        assert said == {int, str, ("several", str(int))}
    else:
        assert said == meant


def test_keywords_are_the_command_s_options() -> None:
    """Precedence: keyword, then settings, then preset, then default."""
    by_command = resolve_fit(
        {
            "--set": {"k": 8, "lr": 0.1},
            "preset": {"kind": "topk", **load_kind("topk").Settings.preset},
        }
    ).settings
    assert fit_settings(None, "topk", {"k": 8, "lr": 0.1}) == by_command
    assert fit_settings(None, "paper", {}) == FitSettings()
    given = FitSettings(kind="topk", k=4, seed=3)
    assert fit_settings(given, "topk", {}) is given
    assert fit_settings(given, "topk", {"k": "1k"}) == FitSettings(kind="topk", k=1000, seed=3)


def test_groups_are_mappings_or_their_objects() -> None:
    by_mapping = fit_settings(None, "paper", {"temperature": {"base": 0.2}})
    by_object = fit_settings(None, "paper", {"temperature": TemperatureSettings(base=0.2)})
    assert by_mapping == by_object
    temperature = by_mapping.model_dump()["temperature"]
    assert (temperature["base"], temperature["momentum"]) == (0.2, 0.99)


def test_extract_keywords_go_over_settings() -> None:
    given = ExtractSettings(layer=3, ids_field="ids")
    assert extract_settings(given, {"vectors": "2k"}) == ExtractSettings(
        layer=3, ids_field="ids", vectors=2000
    )
    assert extract_settings(None, {"layer": [3, 5]}).layer == (3, 5)


WRONG = [
    ("fit", {"lrr": 1}, "fit() has no keyword 'lrr': did you mean lr?"),
    ("fit", {"learning_rate": 1}, "'learning_rate': did you mean lr?"),
    ("fit", {"prest": "paper"}, "'prest': did you mean preset?"),
    ("fit", {"zzz": 1}, "'zzz': help(cpsae.fit) lists them"),
    ("fit", {"temperature": {"bas": 1}}, "temperature.bas': did you mean temperature.base"),
    ("fit", {"bandwidth": 0.1}, "bandwidth is a setting of the kind jumprelu"),
    ("fit", {"lr": -1}, "lr = -1 (from keyword): expected more than 0"),
    ("fit", {"settings": "paper"}, "expected FitSettings"),
    ("sweep", {"members": {"kk": [1, 2]}}, "there is no setting 'kk'"),
    ("sweep", {"members": {}}, "names no setting"),
    ("sweep", {"members": {"k": [1]}}, "one value is no sweep"),
    ("extract", {"layr": 1}, "extract() has no keyword 'layr': did you mean layer?"),
    ("extract", {"model_name": "gpt2"}, "'model_name': did you mean model?"),
    ("extract", {"tokens": 1}, "tokens = 1 (from keyword): expected 2 or more"),
    ("extract", {"settings": "gpt2"}, "expected ExtractSettings"),
]


@pytest.mark.parametrize(("function", "keywords", "text"), WRONG)
def test_a_wrong_keyword_is_one_line(function, keywords, text, tmp_path) -> None:
    place = () if function == "extract" else (tmp_path / "acts.zarr",)
    with pytest.raises(SettingsError) as raised:
        getattr(cpsae, function)(*place, **keywords)
    assert text in str(raised.value) and "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "keywords"), [("extract", ExtractKeywords), ("fit", FitKeywords)])
def test_python_shows_each_setting_in_the_signature(name, keywords) -> None:
    """Which help() prints and notebooks complete from."""
    parameters = inspect.signature(getattr(cpsae, name)).parameters
    assert keywords.__annotations__.keys() <= parameters.keys()
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())


@pytest.mark.parametrize("function", [cpsae.fit, cpsae.sweep])
def test_type_checkers_know_what_a_run_takes(function) -> None:
    """The overloads, of which Python keeps nothing, name it by RunKeywords."""
    hints = get_type_hints(RunKeywords)
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    taken = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert hints.keys() - FitKeywords.__annotations__.keys() <= taken.keys()
    assert taken.keys() - {"should_stop"} <= hints.keys()
    assert all(hints[name] == taken[name] for name in hints.keys() & taken.keys())
