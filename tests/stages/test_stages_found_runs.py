"""Where runs are looked for; what is read of them is in test_stages_compare.py."""

import json

from run_files import write_run

from cpsae.stages.found_runs import find_runs, read_run


def test_numbers_in_names_are_in_the_order_of_numbers(tmp_path):
    for name in ("k=160", "k=20", "l1=0.1", "l1=0.04", "k=80", "paper"):
        write_run(tmp_path / name, summary={"l0": 1.0})
    found = [path.name for path in find_runs([tmp_path])]
    assert found == ["k=20", "k=80", "k=160", "l1=0.04", "l1=0.1", "paper"]


def test_where_runs_are_looked_for(tmp_path):
    """Below a folder: not in runs, stores, hidden or set-aside folders, nor twice through links."""
    write_run(tmp_path / "x/deep/a", summary={"l0": 1.0})
    write_run(tmp_path / "x/deep/a/finished/step-000010", summary={"l0": 1.0})
    write_run(tmp_path / "x/a.old-1", summary={"l0": 1.0})
    write_run(tmp_path / "x/.hidden", summary={"l0": 1.0})
    write_run(tmp_path / "acts.zarr/inside", summary={"l0": 1.0})
    (tmp_path / "acts.zarr/zarr.json").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "x/round").symlink_to(tmp_path)
    write_run(tmp_path / "elsewhere/b", summary={"l0": 1.0})
    (tmp_path / "y").mkdir()
    (tmp_path / "y/linked").symlink_to(tmp_path / "elsewhere/b")
    assert find_runs([tmp_path / "x/deep"]) == [tmp_path / "x/deep/a"]
    found = [path.resolve() for path in find_runs([tmp_path])]
    assert found == [tmp_path / "elsewhere/b", tmp_path / "x/deep/a"]
    assert find_runs([tmp_path / "y"]) == [tmp_path / "y/linked"]
    assert find_runs([tmp_path / "x/a.old-1"]) == [tmp_path / "x/a.old-1"]  # named, so wanted


def test_a_setting_that_came_after_a_run_is_at_its_default(tmp_path):
    write_run(tmp_path / "before", preset="relu", temperature=None)
    write_run(tmp_path / "after", preset="relu", temperature=None, new_features="initial")
    for name in ("before", "after"):  # write_run's is the paper's; relu has none
        file = tmp_path / name / "config.json"
        config = json.loads(file.read_text())
        del config["settings"]["temperature"]
        file.write_text(json.dumps(config))
    before, after = (read_run(tmp_path / name) for name in ("before", "after"))
    assert before.settings["new_features"] == "initial"
    assert before.settings == after.settings
