"""What is timed as an update: the real one, and five products."""

import sys
import types

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cpsae.bench import fit as bench
from cpsae.bench import peers
from cpsae.errors import SettingsError

D, N, B = 8, 64, 16
CPU = torch.device("cpu")


def test_the_floor_is_five_products() -> None:
    with FlopCounterMode(display=False) as counter:
        bench.products(torch.randn(B, D), torch.randn(N, D))
    assert counter.get_total_flops() == 5 * 2 * B * D * N


def test_a_line_for_each_preset(monkeypatch) -> None:
    monkeypatch.setattr(peers, "_LIBRARIES", {})
    table = bench.bench_fit(D, N, B, CPU, ["baseline", "topk"], rounds=2)
    assert [line.name for line in table.lines] == [bench.FLOOR, "cpsae baseline", "cpsae topk"]
    assert table.setting == {"d": D, "n": N, "batch": B, "rounds": 2}
    assert all(line.seconds > 0 and line.lowest <= line.of_floor for line in table.lines)


def test_all_features_take_part_from_the_first_update_on() -> None:
    trained = bench.trainable("paper", D, N, CPU)
    before = trained.optimizer.weights["w_dec"].clone()
    trained.update(torch.randn(B, D), 1e-3)
    assert trained.enabling.n_enabled == N and trained.step == 1
    assert not torch.equal(trained.optimizer.weights["w_dec"], before)


def test_a_dictionary_too_small_for_k() -> None:
    with pytest.raises(SettingsError, match=r"preset topk at n = 8: "):
        bench.bench_fit(D, 8, B, CPU, ["topk"], rounds=1)


def test_libraries_are_timed_where_they_are_installed(monkeypatch) -> None:
    there = types.ModuleType("there")
    there.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "there", there)
    made = {
        "there": lambda d, n, x: {f"there {d} {n} {len(x)}": lambda: None},
        "not_there": lambda _d, _n, _x: pytest.fail("it is not installed"),
    }
    monkeypatch.setattr(peers, "_LIBRARIES", made)
    assert list(peers.peers(D, N, torch.randn(B, D))) == [f"there {D} {N} {B}"]
