import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpsae.config import parse_count
from cpsae.errors import SettingsError
from cpsae.training.recipes import resolve_fit


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("128", 128),
        ("10M", 10_000_000),
        ("512k", 512_000),
        ("512K", 512_000),
        ("2B", 2_000_000_000),
        ("1_000", 1000),
        (" 7 ", 7),
        ("1.5k", 1500),
        ("1.005k", 1005),  # 1.005 * 1000 is not whole in floats
        ("0.3M", 300_000),
        ("2.0", 2),
        ("0", 0),
    ],
)
def test_counts(text, count):
    assert parse_count(text) == count
    assert isinstance(parse_count(text), int)


@pytest.mark.parametrize("text", ["", "M", "ten", "-5", "1e6", "10 MB", "10Mx", "1.5", "1.0005k"])
def test_what_is_no_count(text):
    with pytest.raises(ValueError, match="no count|not a whole number"):
        parse_count(text)


def test_truth_is_no_count():
    with pytest.raises(SettingsError, match=r"steps = True \(from --set\): True is no count"):
        resolve_fit({"--set": {"steps": True}})


@given(st.integers(0, 10**12))
def test_numbers_stay_what_they_are(number):
    assert parse_count(number) == number
    assert parse_count(str(number)) == number


@pytest.mark.parametrize("key", ["steps", "k", "lr", "device", "kind", "optimizer"])
def test_what_is_no_text_is_shown_by_its_number(key) -> None:
    """A byte of the command line that is no UTF-8, as Python hands it over."""
    given = {"--set": {"kind": "topk", key: "1\udcff"}}
    with pytest.raises(SettingsError) as raised:
        resolve_fit(given)
    assert key in str(raised.value) and "\n" not in str(raised.value)
