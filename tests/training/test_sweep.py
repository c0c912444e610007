"""What can be swept, and what is refused by name."""

import pytest

from cpsae.errors import SettingsError
from cpsae.training.sweep import MOST_MEMBERS, parse_axes


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["k"], "--sweep k: expected KEY=V1,V2, like --sweep l1=0.02,0.04"),
        (["=1,2"], "expected KEY=V1,V2"),
        (["k=8"], "--sweep k=8: one value is no sweep"),
        (["k=8,"], "'' cannot name a run folder"),
        (["init=a/b,tied"], "'a/b' cannot name a run folder"),
        (["k=8,8"], "a value is given twice"),
        (["lr=1e-3,0.001"], "a value is given twice"),
        (["k=8,16", "k=1,2"], "--sweep k: is given twice"),
        (["batch_size=8,16"], "--sweep batch_size: all runs of a sweep share one feed"),
        (["order_seed=0,1"], "share one feed"),
        (["max_norm=0,10"], "share one feed"),
        (["window_chunks=1,2"], "share one feed"),
        (["steps=8,16"], "share one feed and one number of steps"),
        (["device=cpu,cuda"], "says how runs are made"),
        (["seed=" + ",".join(map(str, range(257)))], "257 runs are more than 256"),
        ([f"seed={','.join(map(str, range(20)))}", f"k={','.join(map(str, range(1, 21)))}"], "400"),
    ],
)
def test_refused(options, text):
    with pytest.raises(SettingsError, match=text) as caught:
        parse_axes(options)
    assert "\n" not in str(caught.value)


def test_values_are_read_as_set_reads_them():
    axes = parse_axes(["lr= 1e-3, 2 ", "init=tied,uniform", "center=true,false"])
    assert [value.value for value in axes["lr"]] == [1e-3, 2]
    assert [value.typed for value in axes["lr"]] == ["1e-3", "2"]
    assert [value.value for value in axes["init"]] == ["tied", "uniform"]
    assert [value.value for value in axes["center"]] == [True, False]
    assert MOST_MEMBERS == 256
