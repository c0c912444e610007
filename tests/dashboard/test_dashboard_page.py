"""The page in headless Chromium: it says what was computed, can be used, and asks for nothing."""

import base64
import csv
import gzip
import hashlib
import io
import json
import re

import pytest
from browsing import find_chromium, opened

from cpsae.dashboard.page import SCRIPTS, packed
from cpsae.stages import store_language
from cpsae.stages.report import report

HOSTILE = (
    *("<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "</script>"),
    *(
        "<!--",
        "\u2028",
        "javascript:alert(1)",
        '"><b>bold</b>',
        "{{7*7}}",
        "=cmd|' /C calc'!A0",
        "%{x}",
    ),
)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="session")
def browser():
    chromium = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium)
        yield found
        found.close()


@pytest.fixture(scope="session")
def file(shown_runs, tmp_path_factory):
    return report(shown_runs / "k=4", tmp_path_factory.mktemp("page") / "report.html").path


def data_of(file, name):
    """What a script of the page is given."""
    letters = re.search(rf'id="{name}">([A-Za-z0-9+/=]*)<', file.read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(letters)))


def column(page, name):
    return page.locator(f"#rows tbody .c-{name}").all_inner_texts()


def test_the_policy_lets_the_scripts_of_the_page_run_and_no_other(file) -> None:
    text = file.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none';") and "unsafe-eval" not in policy
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{sha}'" in policy
    assert not re.search(r"(src|href)=\"(?!#|data:)", text), "an address that is not in the page"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


def test_scripts_do_not_end_the_element_that_they_are_in() -> None:
    from cpsae.dashboard.page import _library, _script

    assert SCRIPTS and "</script" not in _script().lower()
    assert "</script" not in _library().lower() and "Plotly" in _library()


def test_the_same_content_is_packed_into_the_same_letters() -> None:
    assert packed(b"abc") == packed(b"abc")
    assert gzip.decompress(base64.b64decode(packed(b"abc"))) == b"abc"


def test_it_shows_the_run_and_its_figures(browser, file, shown_runs) -> None:
    summary = json.loads((shown_runs / "k=4" / "summary.json").read_text())
    with opened(browser, file) as page:
        assert page.locator("h1").inner_text().startswith("40 features of ")
        cards = page.locator("#headlines li").all_inner_texts()
        assert any(f"{summary['explained_variance']:.3f}" in card for card in cards)
        page.locator("#headlines li").first.hover()
        assert "variance of held-out" in page.locator("#tip").inner_text()
        page.locator("#charts figure").first.scroll_into_view_if_needed()
        page.wait_for_selector("#charts .main-svg", timeout=60_000)
        assert "layer 2" in page.locator("#facts").inner_text()


def test_the_table_is_sorted_searched_and_filtered(browser, file) -> None:
    features = data_of(file, "detail-data-0")["features"]
    with opened(browser, file, "#features") as page:
        assert len(column(page, "id")) == 40
        page.click("#rows thead .c-largest button")
        largest = [float(text) for text in column(page, "largest")]
        assert largest == sorted(largest, reverse=True)
        assert page.locator("#rows thead .c-largest").get_attribute("aria-sort") == "descending"
        page.click("#rows thead .c-largest button")
        assert [float(text) for text in column(page, "largest")] == sorted(largest)
        page.focus("#rows thead .c-id button")
        page.keyboard.press("Enter")
        assert [int(text) for text in column(page, "id")] == list(range(40))
        assert [int(text) for text in column(page, "enabled")] == features["enabled"]
        page.fill("#search", "17")
        assert "17" in column(page, "id") and len(column(page, "id")) < 5
        word = page.locator("#rows .chip").first.inner_text()
        page.fill("#search", word)
        assert all(word in words for words in column(page, "words"))
        page.fill("#search", "")
        page.select_option("#which", "late")
        late = sum(1 for step in features["enabled"] if step)
        assert 0 < late < 40 and len(column(page, "id")) == late
        assert page.locator("#count").inner_text() == f"{late} of 40 features"


def test_a_deep_link_shows_a_feature_with_its_examples(browser, file) -> None:
    detail = data_of(file, "detail-data-0")
    busy = max(range(40), key=lambda i: detail["features"]["count"][i])
    with opened(browser, file, f"#f{busy}") as page:
        assert page.locator("#detail h2").inner_text() == f"Feature {busy}"
        assert page.locator("#examples .examples li").count() >= 10
        token = page.locator("#examples .peak").first
        token.hover()
        value = page.locator("#examples .examples .value").first.inner_text()
        assert page.locator("#tip").inner_text().endswith(value)
        assert float(value) == pytest.approx(detail["features"]["largest"][busy], rel=0.01)
        page.wait_for_selector("#histogram .main-svg", timeout=60_000)
        assert page.locator(".logits.up li").count() == 10
        page.keyboard.press("j")
        page.wait_for_function(f"location.hash !== '#f{busy}'")
        other = page.evaluate("location.hash").removeprefix("#f")
        assert page.locator("#detail h2").inner_text() == f"Feature {other}"
        near = page.locator(".relations a").first
        number = near.inner_text().removeprefix("#")
        near.click()
        assert page.locator("#detail h2").inner_text() == f"Feature {number}"


def test_a_feature_that_is_not_there_is_told_of(browser, file) -> None:
    with opened(browser, file, "#f4000") as page:
        assert "no feature 4000" in page.locator("#detail").inner_text()


def saved(page, button):
    with page.expect_download() as download:
        page.click(button)
    return download.value.path().read_text()


def test_what_is_seen_is_exported(browser, file) -> None:
    with opened(browser, file, "#features", accept_downloads=True) as page:
        page.select_option("#which", "late")
        shown = column(page, "id")
        rows = list(csv.DictReader(io.StringIO(saved(page, "#csv"))))
        assert [row["feature"] for row in rows] == shown
        assert all(isinstance(json.loads(row["top_tokens"]), list) for row in rows)
        listed = json.loads(saved(page, "#json"))
        assert [str(one["feature"]) for one in listed] == shown
        one = json.loads(saved(page, "#feature-json"))
        assert {"examples", "logits", "nearest", "histogram", "suppresses"} <= one.keys()
        assert sum(one["histogram"]["counts"]) == one["rows_fired_in"]


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, file) -> None:
    width = "document.documentElement.scrollWidth"
    with opened(browser, file, **PHONE) as page:
        assert page.evaluate(width) == 390
        page.tap("#tab-features")
        assert page.locator("#detail").is_hidden()
        page.locator("#rows tbody tr").nth(2).tap()
        page.wait_for_selector("#detail h2", state="visible")
        assert page.locator(".list").is_hidden() and page.evaluate(width) == 390
        page.locator(".peak").first.tap()
        assert page.locator("#tip").is_visible()
        page.tap(".back")
        page.select_option("#sort", "largest down")
        largest = [float(t) for t in page.locator("#rows tbody .c-largest").all_text_contents()]
        assert largest == sorted(largest, reverse=True)


def test_light_and_dark_differ_and_can_be_changed(browser, file) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, file, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        page.click("#theme")
        assert page.evaluate(ground) != dark
        page.click("#theme")
        assert page.evaluate(ground) == dark


def test_hostile_tokens_names_and_paths_are_text(
    browser, shown_runs, tmp_path, monkeypatch
) -> None:
    import shutil

    run = shutil.copytree(shown_runs / "k=4", tmp_path / "<img src=x onerror=alert(1)>")
    config = json.loads((run / "config.json").read_text())
    config["store"]["manifest"]["dataset"]["id"] = "<script>window.hacked=1</script>"
    config["store"]["manifest"]["model"]["id"] = "</title><script>window.hacked=1</script>"
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(store_language, "sayer", lambda _: lambda t: HOSTILE[t % len(HOSTILE)])
    page_file = tmp_path / "report.html"
    report([run, shown_runs / "k=8"], page_file, rows=300, logits=False)
    with opened(browser, page_file) as page:
        page.wait_for_selector("#charts figure")
        assert "<script>window.hacked=1</script>" in page.locator("#facts").inner_text()
        assert "<img src=x onerror=alert(1)>" in page.locator("#runs").inner_text()
        page.click("#tab-features")
        page.locator("#rows tbody tr").first.click()
        words = page.locator("#detail").inner_text()
        assert "<script>window.hacked=1</script>" in words and "{{7*7}}" in words
        assert page.evaluate("window.hacked") is None
        assert page.locator("#detail img, #detail script, #rows img, #detail b").count() == 0
        page.locator(".peak").first.hover()
        assert page.locator("#tip > *").count() == 0
