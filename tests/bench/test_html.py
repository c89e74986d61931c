"""The report page: what it says, what it embeds, and that nothing in it can break out or ask for anything."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from bench.errors import LetheError
from bench.html import embedded, write_html
from bench.store import Record
from bench.tables import tables_of
from tests.toy_report import EVIL_METHOD, EVIL_MODEL, EVIL_TEXT, Made, answers, fill, tofu

if TYPE_CHECKING:
    from playwright.sync_api import Page

METHODS = ("original", "retrained", EVIL_METHOD, "npo", "ga", "grun_npo", "rmu")
VOID = {"meta", "input", "br", "link", "img"}


class Parsed(HTMLParser):
    """Elements in order, with the text directly inside each, and whether every one was closed."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.found[self.open[-1]][2].append(data)

    def all(self, tag: str, class_: str = "") -> list[tuple[dict[str, str | None], str]]:
        return [
            (attrs, "".join(text))
            for name, attrs, text in self.found
            if name == tag and class_ in [*(attrs.get("class") or "").split(), ""]
        ]

    def blocks(self) -> list[dict[str, Any]]:
        return [json.loads(text) for attrs, text in self.all("script") if attrs.get("type") == "application/json"]


def section(source: str, title: str) -> str:
    """The markup of one table."""
    (found,) = (part for part in re.findall(r"<section.*?</section>", source, re.DOTALL) if f">{title} " in part)
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def records(out: Path) -> list[Record]:
    return fill(out)


@pytest.fixture(scope="module")
def source(out: Path, records: list[Record]) -> str:
    return write_html(records, [out], out, methods=METHODS).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(source: str) -> Parsed:
    return Parsed(source)


def test_the_same_records_give_the_same_bytes(out: Path, records: list[Record], source: str, tmp_path: Path) -> None:
    again = write_html(records, [out], tmp_path, methods=METHODS)
    assert again == tmp_path / "report.html"
    assert again.read_text(encoding="utf-8") == source
    assert not re.search(r"\b20\d\d-\d\d", source)  # no date


@pytest.fixture(scope="module")
def questions(source: str) -> Parsed:
    """The table of the question set."""
    return Parsed(section(source, "tofu/forget10"))


def test_names_and_texts_cannot_become_markup(source: str, parsed: Parsed, questions: Parsed) -> None:
    assert not parsed.all("img")
    assert not parsed.all("b", "lost")
    scripts = parsed.all("script")
    assert [attrs.get("type") for attrs, _ in scripts].count(None) == 1  # the page's own
    assert not [name for _, attrs, _ in parsed.found for name in attrs if name.startswith("on") or name == "style"]
    names = [attrs["data-method"] for attrs, _ in questions.all("tr") if "data-method" in attrs]
    assert names == list(METHODS)
    assert any(EVIL_MODEL in text for _, text in parsed.all("h2"))
    assert "alert(1)</script>" not in source


def test_samples_load_back_as_they_were(parsed: Parsed) -> None:
    blocks = {(block["title"].split(" ")[0], block["evaluator"]): block for block in parsed.blocks()}
    block = blocks["tofu/forget10", "tofu"]
    answered = {row["answers"][block["methods"].index(EVIL_METHOD)] for row in block["rows"]}
    assert answered == {EVIL_TEXT}
    assert block["sets"] == {name: {"shown": 30, "total": 30} for name in ("forget", "retain")}
    assert {key[1] for key in blocks} == {"tofu", "wmdp", "ort"}


def test_what_is_embedded_holds_no_sign_of_html() -> None:
    value = {"a": EVIL_TEXT, "b": "<!-- </SCRIPT> &amp; \r\n\t\"'\\"}
    text = str(embedded(value))
    assert not re.search("[<>&\u2028\u2029\x00-\x1f]", text)
    assert json.loads(text) == value


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(parsed: Parsed) -> None:
    (policy,) = (a["content"] for a, _ in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    ((_, style),) = parsed.all("style")
    (script,) = (text for attrs, text in parsed.all("script") if "type" not in attrs)

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    expected = {"default-src 'none'", f"style-src {digest(style)}", f"script-src {digest(script)}"}
    assert set((policy or "").split("; ")) == expected | {"base-uri 'none'", "form-action 'none'"}


def test_nothing_points_out_of_the_page(source: str, parsed: Parsed) -> None:
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|XMLHttp|WebSocket|//[a-z]+\.", source)
    targets = [attrs[key] or "" for _, attrs, _ in parsed.found for key in ("href", "src", "action") if key in attrs]
    ids = {attrs["id"] for _, attrs, _ in parsed.found if "id" in attrs}
    assert {target[1:] for target in targets if target.startswith("#")} <= ids
    assert all(target.startswith("#") for target in targets)
    assert not parsed.all("link")


def test_cells_sort_by_the_figure_in_full(questions: Parsed, records: list[Record]) -> None:
    table = next(t for t in tables_of(records, METHODS) if t.benchmark == "tofu/forget10")
    cells = [attrs["data-sort"] for attrs, _ in questions.all("td") if "data-sort" in attrs]
    heads = [attrs["data-metric"] or "" for attrs, _ in questions.all("th") if "data-metric" in attrs]
    assert heads[0] == "forget_quality"
    assert cells == [repr(row.mean(metric)) if row.values(metric) else "" for row in table.rows for metric in heads]


def test_a_cell_tells_seeds_deviation_and_why_it_is_missing(questions: Parsed) -> None:
    tips = [attrs["data-tip"] or "" for attrs, _ in questions.all("td") if "data-tip" in attrs]
    (told,) = (tip for tip in tips if tip.startswith("npo: forget_ks_d"))
    # 0.5 and 0.52: mean 0.51, deviation 0.02 / sqrt(2)
    assert told.split("\n")[1:] == [
        "0.51, mean of 2 seeds",
        "standard deviation 0.0141421: 0.5, 0.52",
        "n = 40 examples a run, standard error 0.01",
    ]
    assert any(tip == "npo: forget_quality\nmissing: no rows of a retrained model" for tip in tips)
    assert any(tip.startswith("rmu: forget_ks_d\nmissing: no run is complete") for tip in tips)


def test_a_failed_cell_is_seen_with_its_reason(parsed: Parsed) -> None:
    assert [text for _, text in parsed.all("span", "failure")] == ["seed 0 failed: <b>lost</b> & gone"]
    assert [text for _, text in parsed.all("strong", "bad")] == ["1 cell failed"]
    assert [text for _, text in parsed.all("td", "bad")] == ["0/1"]


def test_the_caption_names_where_figures_come_from(source: str) -> None:
    caption = re.sub(r"\s+", " ", re.sub("<[^>]+>", "", section(source, "tofu/forget10").split("caption>")[1]))
    for part in ("seeds 0, 1", "protocol strict", "commit c0ffeec0ff with uncommitted changes", "data made &lt;up&gt;"):
        assert part in caption


def test_marks_of_best_second_and_tied(out: Path, records: list[Record], tmp_path: Path) -> None:
    tables = tables_of(records, METHODS)
    tied = [replace(t, tied={"model_utility": frozenset({"npo"})}) for t in tables]
    page = Parsed(write_html(records, [out], tmp_path, tables=tied).read_text(encoding="utf-8"))
    marks = {
        (attrs["data-tip"] or "").split("\n")[0]: attrs["class"]
        for attrs, _ in page.all("td", "")
        if "data-tip" in attrs
    }
    assert marks["grun_npo: model_utility"] == "best"
    assert marks["npo: model_utility"] == "second tied"
    assert marks["original: model_utility"] == ""
    assert marks["npo: exact_memorization"] == "extra"


def test_every_picture_is_there_and_well_formed(source: str) -> None:
    titles = re.findall(r"<h3>(.*?)</h3>", source)
    of_questions = ["Forgetting and utility", "Truth ratios of the forget set", "Losses", "Gates"]
    assert sorted(set(titles)) == sorted(
        [
            *of_questions,
            "Forgetting by form",
            "Successive requests: ort/1_Ann_Lee&gt;ort/2_Ben_Oz, model m, protocol strict",
            "Targets unlearned together: ort/3-4, model nested, protocol strict",
        ]
    )
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", source, re.DOTALL)]
    assert len(drawings) > 20
    labels = [drawing.attrib["aria-label"] for drawing in drawings]
    assert any(label.endswith(f"Pareto front: grun_npo, {EVIL_METHOD}") for label in labels)
    assert "grun_npo, layer 2: means forget 0.94, retain 0.14, unrelated 0.14" in labels  # 0.9 + 0.002 * 19.5


def test_no_more_than_so_many_samples_of_a_set_and_the_page_says_so(
    out: Path, records: list[Record], tmp_path: Path
) -> None:
    text = write_html(records, [out], tmp_path, per_set=3).read_text(encoding="utf-8")
    assert {n["shown"] for block in Parsed(text).blocks() for n in block["sets"].values()} <= {1, 2, 3}
    assert "at most 3 of a set" in text


def test_without_folders_there_are_tables_and_no_samples(records: list[Record], tmp_path: Path) -> None:
    text = write_html(records, [], tmp_path).read_text(encoding="utf-8")
    assert Parsed(text).blocks() == []
    assert "Forgetting and utility" in text
    assert 'id="samples"' not in text


def test_no_records_are_a_page_too(tmp_path: Path) -> None:
    assert "0 tables" in write_html([], [], tmp_path).read_text(encoding="utf-8")


def test_damaged_samples_are_named(tmp_path: Path) -> None:
    made = Made(tmp_path)
    cell = made.cell("npo", metrics=tofu(0.1, 0.2), samples=answers(2))
    (tmp_path / "runs" / cell / "samples" / "tofu.jsonl").write_text('{"set": "for')
    with pytest.raises(LetheError, match=r"tofu\.jsonl, line 1, is not valid JSON"):
        write_html(made.records(), [tmp_path], tmp_path)


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    import shutil

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, out: Path, source: str) -> "Iterator[Page]":
    """The page, opened from its file; what it asks for, complains of or runs is an error."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.endswith("/report.html") else None)
    page.goto((out / "report.html").as_uri())
    yield page
    assert wrong == []
    context.close()


def names(page: "Page", section: str = "t") -> list[str]:
    return page.evaluate(
        "id => [...document.querySelectorAll(`#${id} tbody tr`)].filter(r => !r.hidden).map(r => r.dataset.method)",
        section,
    )


def section_of(page: "Page", title: str) -> str:
    return page.evaluate(
        "t => [...document.querySelectorAll('h2')].find(h => h.textContent.startsWith(t)).parentElement.id",
        title,
    )


def test_a_click_sorts_and_references_stay_on_top(page: "Page") -> None:
    at = section_of(page, "tofu/forget10")
    head = page.locator(f"#{at} th[data-metric=forget_ks_d] button")
    before = names(page, at)
    head.click()  # less is better, so the smallest first; what is missing last
    assert names(page, at) == ["original", "retrained", EVIL_METHOD, "grun_npo", "ga", "npo", "rmu"]
    head.click()
    assert names(page, at) == ["original", "retrained", "npo", "ga", "grun_npo", EVIL_METHOD, "rmu"]
    head.click()
    assert names(page, at) == before == list(METHODS)


def test_methods_and_metrics_are_found_by_text(page: "Page") -> None:
    at = section_of(page, "tofu/forget10")
    page.fill(f"#{at} .find-method", "B_%")
    assert names(page, at) == [EVIL_METHOD]
    page.fill(f"#{at} .find-method", "")
    assert not page.locator(f"#{at} th[data-metric=exact_memorization]").is_visible()
    page.check(f"#{at} .show-all")
    assert page.locator(f"#{at} th[data-metric=exact_memorization]").is_visible()
    page.fill(f"#{at} .find-metric", "utility")
    assert page.locator(f"#{at} th[data-metric]:visible").count() == 1
    page.check(f"#{at} .show-deviation")
    assert page.locator(f"#{at} td small:visible").count() == 5  # those with two seeds


def test_keys_reach_what_hovering_tells(page: "Page") -> None:
    at = section_of(page, "tofu/forget10")
    page.locator(f"#{at} tbody th").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    told = page.locator("#tip")
    assert told.inner_text().startswith("retrained: forget_quality")
    page.keyboard.press("Escape")
    assert not told.is_visible()
    page.locator(f"#{at} .mark").first.focus()
    assert told.is_visible()


def test_samples_are_browsed_and_filtered(page: "Page") -> None:
    page.select_option("#pick-table", section_of(page, "tofu/forget10"))
    assert page.inner_text("#position") == "1 of 60"
    page.select_option("#pick-set", "=retain")
    assert page.inner_text("#position") == "1 of 30"
    page.select_option("#pick-metric", label="rouge_l_recall")
    page.select_option("#pick-method", label="npo")
    page.fill("#from", "0.5")
    assert page.inner_text("#position") == "1 of 15"  # 15 / 30 and more
    page.click("#next")
    assert page.inner_text("#position") == "2 of 15"
    page.focus("#previous")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#position") == "1 of 15"
    assert page.is_disabled("#previous")
    shown = page.evaluate(
        "m => [...document.querySelectorAll('.answer')].find(a => a.querySelector('h4').textContent === m)"
        ".querySelector('p').textContent",
        EVIL_METHOD,
    )
    assert shown == EVIL_TEXT.replace("\ud800", "\ufffd") or shown == EVIL_TEXT
    page.fill("#find-text", "question 17 of")
    assert page.inner_text("#position") == "1 of 1"
    page.fill("#find-text", "nowhere")
    assert page.inner_text("#position") == "nothing fits"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_screen(page: "Page", width: int, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    luminance = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (luminance < 128) == (scheme == "dark")


def test_it_prints_without_controls(page: "Page") -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".controls:visible").count() == 0
    assert len(page.pdf()) > 10_000
