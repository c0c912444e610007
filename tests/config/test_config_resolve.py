import json

import pytest

from cpsae.config import ExtractSettings, resolve
from cpsae.config.resolve import (
    defaults,
    differences,
    flatten,
    nest,
    parse_assignments,
    read_recipe,
    read_run_config,
)
from cpsae.errors import SettingsError
from cpsae.training.recipes import fit_recipe, preset, preset_names, resolve_fit
from cpsae.training.settings import FitSettings

STRONGEST_FIRST = ["option", "--set", "recipe r.toml", "preset baseline"]


@pytest.mark.parametrize("strongest", range(5))
def test_precedence_and_origins(strongest):
    layers = {name: {"l1": 0.5 + i} for i, name in enumerate(STRONGEST_FIRST) if i >= strongest}
    resolved = resolve_fit(layers)
    assert resolved.settings.method.l1 == (0.5 + strongest if layers else 0.04)  # type: ignore[attr-defined]
    assert resolved.origins["l1"] == (STRONGEST_FIRST[strongest] if layers else "default")
    assert resolved.origins["lr"] == "default"
    assert resolved.origins.keys() == defaults(FitSettings).keys()


def test_layers_mix_within_a_group():
    layers = {"--set": {"temperature.min": 0.01}, "recipe r.toml": {"temperature": {"max": 0.9}}}
    resolved = resolve_fit(layers)  # type: ignore[arg-type]
    temperature = resolved.settings.method.temperature  # type: ignore[attr-defined]
    assert (temperature.min, temperature.max, temperature.base) == (0.01, 0.9, 0.1)
    assert resolved.origins["temperature.max"] == "recipe r.toml"


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("temperatur.min", "temperature.min"),
        ("normalise", "normalize"),
        ("batchsize", "batch_size"),
    ],
)
def test_an_unknown_key_names_its_layer_and_the_nearest(key, suggestion):
    with pytest.raises(SettingsError, match=rf"--set: .*'{key}'.*did you mean.*{suggestion}"):
        resolve_fit({"--set": {key: 1}})
    with pytest.raises(SettingsError) as caught:
        resolve_fit({"recipe r.toml": {"quux": 1}})
    assert "--print-config" in str(caught.value)
    assert caught.value.from_file


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", -1),
        ("lr", 0),
        ("lr", float("nan")),
        ("lr", "fast"),
        ("l1", -0.1),
        ("steps", 0),
        ("steps", "1.5"),
        ("batch_size", 0),
        ("n_latents", 0),
        ("initial_fraction", 0),
        ("initial_fraction", 1.1),
        ("importance_beta", 1),
        ("max_norm", -1),
        ("lr_decay", 2),
        ("seed", -1),
        ("temperature.momentum", 1),
        ("temperature.base", 0),
        ("temperature.anneal_steps", -1),
        ("competition.over", "all"),
        ("normalize", "batch"),
        ("utilisation", "median"),
        ("kind", "gated2"),
        ("kind", 3),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("growth", "slow"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_key_and_origin(key, value):
    with pytest.raises(SettingsError) as caught:
        resolve_fit({"--set": nest({key: value})})
    text = str(caught.value)
    assert text.startswith(f"{key} = {value!r} (from --set): ")
    assert "\n" not in text
    assert not caught.value.from_file


@pytest.mark.parametrize(
    ("key", "value"),
    [("layer", -1), ("tokens", 1), ("tokens", "0"), ("vectors", 0), ("dtype", "x")],
)
def test_the_same_of_extract(key, value):
    with pytest.raises(SettingsError, match=rf"^{key} = .* \(from option\): "):
        resolve(ExtractSettings, {"option": {key: value}})


@pytest.mark.parametrize(("key", "value"), [("k", 0), ("aux_k", -1), ("aux_coefficient", "x")])
def test_the_same_of_a_kinds_own_settings(key, value):
    with pytest.raises(SettingsError) as caught:
        resolve_fit({"--set": {"kind": "topk", key: value, "lr": -1}})
    assert f"{key} = {value!r} (from --set): " in str(caught.value)
    assert "lr = -1 (from --set): " in str(caught.value)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(SettingsError) as caught:
        resolve_fit({"option": {"lr": "-1"}, "recipe r.toml": {"l1": -1}})
    assert "lr = '-1' (from option)" in str(caught.value)
    assert "l1 = -1 (from recipe r.toml)" in str(caught.value)
    assert caught.value.from_file


def test_a_broken_rule_of_a_group_is_blamed_on_who_set_the_group():
    with pytest.raises(SettingsError) as caught:
        resolve_fit({"recipe r.toml": {"temperature": {"min": 0.5}}})
    assert "temperature.min (0.5) is above temperature.max (0.3)" in str(caught.value)
    assert "from recipe r.toml" in str(caught.value)
    assert caught.value.from_file


def test_assignments_are_json_where_they_are_json():
    assert parse_assignments(("l1=0.1", "kind=topk", "steps=null", "center=true", "lr= 1e-3 ")) == {
        "l1": 0.1,
        "kind": "topk",
        "steps": None,
        "center": True,
        "lr": 1e-3,
    }
    assert parse_assignments(("batch_size=2k",)) == {"batch_size": "2k"}
    for wrong in ("l1", "=3"):
        with pytest.raises(SettingsError, match="expected KEY=VALUE"):
            parse_assignments((wrong,))


def test_a_toml_recipe(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("l1 = 0.1\nbatch_size = '2k'\n[temperature]\nmin = 0.01\n")
    values = read_recipe(path)
    assert values == {"l1": 0.1, "batch_size": "2k", "temperature.min": 0.01}
    assert resolve_fit({f"recipe {path}": values}).settings.batch_size == 2000


def test_a_run_s_config_is_a_recipe_that_repeats_it(tmp_path):
    settings = FitSettings(l1=0.5, order_seed=3, temperature={"min": 0.01})
    path = tmp_path / "config.json"
    store = {"path": "a", "identity": "b"}
    content = {"settings": settings.model_dump(mode="json"), "preset": "paper", "store": store}
    path.write_text(json.dumps(content))
    values = fit_recipe(path)
    assert resolve_fit({f"recipe {path}": values}).settings == settings


def test_a_recipe_that_holds_every_setting_goes_with_another_kind():
    """What stands at its default was never asked for; what does not is refused by name."""
    recipe = flatten(FitSettings(lr=0.5).model_dump(mode="json"))
    layers = {"--set": {"kind": "topk"}, "recipe config.json": recipe}
    settings = resolve_fit(layers).settings
    assert (settings.kind, settings.lr, settings.growth) == ("topk", 0.5, "hybrid")
    layers["recipe config.json"]["l1"] = 0.5
    text = "recipe config.json: l1 is a setting of the kinds competitive, .* relu, not of topk"
    with pytest.raises(SettingsError, match=text) as caught:
        resolve_fit(layers)
    assert caught.value.from_file
    with pytest.raises(SettingsError, match="recipe x.toml: temperature.base is a setting of the"):
        resolve_fit({"--set": {"kind": "topk"}, "recipe x.toml": {"temperature.base": 0.1}})


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("r.toml", "l1 = ", "not well-formed"),
        ("r.json", "{", "not well-formed"),
        ("r.json", "[1]", "found a list"),
        ("r.toml", None, "cannot be read"),
    ],
)
def test_a_broken_recipe_is_named(tmp_path, name, content, text):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=text) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    assert caught.value.from_file
    assert "\n" not in str(caught.value)


def test_flatten_and_nest_are_inverse():
    nested = FitSettings().model_dump(mode="json")
    assert nest(flatten(nested)) == nested


def test_differences_name_key_and_both_values():
    old, new = FitSettings().model_dump(), FitSettings(temperature={"min": 0.01}).model_dump()
    assert differences(old, old) == []
    assert differences(old, new) == ["temperature.min: 0.05, not 0.01"]


def test_settings_are_frozen_and_compare_by_value():
    settings = FitSettings()
    with pytest.raises(ValueError, match="frozen"):
        settings.lr = 3  # type: ignore[misc]
    assert FitSettings(l1=0.04) == settings
    assert FitSettings(l1=0.05) != settings


def test_presets():
    kinds = ["competitive", "relu", "topk", "batchtopk"]
    assert preset_names()[:2] == ["paper", "baseline"]
    assert set(kinds) <= set(preset_names())
    for name in preset_names():
        settings = resolve_fit({f"preset {name}": preset(name)}).settings
        assert settings.max_norm == 10
        if name in kinds:
            assert settings.kind == name
    assert resolve_fit({"preset": preset("paper")}).settings == FitSettings()
    baseline = resolve_fit({"preset": preset("baseline")}).settings
    assert (baseline.kind, baseline.growth) == ("relu", "none")
    assert (baseline.normalize, baseline.init, baseline.lr_decay) == ("layer", "tied", 0)
    assert resolve_fit({"preset": preset("competitive")}).settings == FitSettings()
    for kind in ("relu", "topk", "batchtopk", "jumprelu", "gated", "p-anneal"):
        settings = resolve_fit({"preset": preset(kind)}).settings
        assert (settings.growth, settings.normalize, settings.init) == ("none", "unit", "data")
        assert (settings.lr, settings.lr_scaling, settings.lr_decay) == (8e-4, "width", 0.2)
        assert hasattr(settings.method, "l1") == (kind in ("relu", "gated", "p-anneal"))
    with pytest.raises(SettingsError, match="preset nobody's: expected one of paper, baseline, "):
        preset("nobody's")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"], ids=["no mark", "8", "16", "32"]
)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.toml", '# caf\u00e9\r\nbatch_size = "2k"\r\n'),
        ("r.json", '{"batch_size": "2k"}'),
        (
            "config.json",
            """{"settings": {"batch_size": "2k"}, "preset": "",
            "store": {"path": "caf\u00e9", "identity": ""}}""",
        ),
    ],
)
def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path, name, text, encoding):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert read_recipe(path)["batch_size"] == "2k"
    assert fit_recipe(path)["batch_size"] == "2k"
    config = read_run_config(path)
    assert (config is not None) == (name == "config.json")
    assert config is None or config["store"]["path"] == "caf\u00e9"


@pytest.mark.parametrize("content", [b"\xff\xfea", b"\xef\xbb\xbfx = \xff", b"x = '\xe9'"])
def test_a_recipe_in_no_known_encoding_is_one_line(tmp_path, content):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="r.toml: cannot be read") as raised:
        read_recipe(path)
    assert "\n" not in str(raised.value)
