"""The report in a real browser: Debian's Chromium through Playwright, without a network."""

import os
import shutil

import pytest

from unlearn_bench.leaderboard.records import read_runs
from unlearn_bench.report import page as pages
from unlearn_bench.report.testing import TECHNIQUES, write_runs

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell"))
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium, or name one in CHROMIUM"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the path of a report on an object and on something unsafe."""
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    write_runs(folder, {"uce": (0.75, 1.0), "esd": (0.5, 0.75)}, concept="weapon", kind="unsafe")
    out = folder / "report.html"
    out.write_text(pages.render(pages.collect(read_runs([folder]), folder)))
    return out


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: uv sync installs it")
    with api.sync_playwright() as playwright:
        # As root, as in a container, Chromium starts only without its sandbox.
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def show(browser, report):
    """Return a function that opens the report; afterwards nothing may be on the console and nothing asked for."""
    said, asked, opened = [], [], []

    def load(width=1200, height=900, **options):
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        opened.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda problem: said.append(str(problem)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        return page

    yield load
    for page in opened:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()] * len(opened)


def column(page, key, group="g1"):
    """Return the names of the rows in order, and the numbers of a column without the unmodified model's."""
    return page.evaluate(
        """([group, key]) => {
          const table = document.querySelector(`#${group} table.results`);
          const at = [...table.querySelectorAll("thead th")].findIndex(th => th.querySelector(`[data-sort="${key}"]`));
          const rows = [...table.tBodies].flatMap(body => [...body.rows]);
          const values = rows.slice(1).map(row => row.cells[at].dataset.value);
          return [rows.map(row => row.querySelector("th").textContent), values];
        }""",
        [group, key],
    )


def test_sorting(show):
    page = show()
    heading = page.locator("#g1 thead th", has=page.get_by_role("button", name="IRA"))
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    key = heading.get_by_role("button").get_attribute("data-sort")
    names, values = column(page, key)
    assert names == ["unmodified", "uce", "sld", "esd"] and list(map(float, values)) == [1.0, 0.75, 0.5]
    heading.get_by_role("button").press("Enter")  # from the keyboard, the other way round
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(page, key)[0] == ["unmodified", "esd", "sld", "uce"]
    page.get_by_role("button", name="technique").first.click()
    assert column(page, "name")[0] == ["unmodified", "esd", "sld", "uce"]
    assert page.locator("#g1 thead th[aria-sort=ascending]").count() == 1


def test_the_slider_ranks_again(show):
    page = show()
    slider = page.locator("#g1-alpha")
    clip = {"uce": 80.0, "esd": 79.0, "sld": 78.0}
    quality = {name: ((clip[name] - 78) / 3 + (ira - 0.5) / 0.5) / 2 for name, (_, ira) in TECHNIQUES.items()}
    for alpha in (0.0, 0.5, 1.0):
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(alpha))
        wanted = {n: alpha * TECHNIQUES[n][0] + (1 - alpha) * quality[n] for n in TECHNIQUES}
        order = sorted(wanted, key=lambda n: -wanted[n])
        names, values = column(page, "score")
        assert names == ["unmodified", *order]
        assert [float(v) for v in values] == pytest.approx([wanted[n] for n in order])
        assert column(page, "rank")[1] == ["1", "2", "3"]
        assert page.locator("#g1 output").text_content() == f"{alpha:.2f}"
        assert order[0] in page.locator("#g1 [data-status]").text_content()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#g1 output").text_content() == "0.95"


def test_the_front_joins_what_nothing_beats(show):
    page = show()
    points = page.locator("#g1 .point")
    spoken = {points.nth(i).get_attribute("aria-label") for i in range(points.count())}
    front = {text.partition(":")[0] for text in spoken if "Pareto" in text}
    # esd forgets most, the unmodified model has the best pictures, uce is between; sld is beaten by uce
    assert front == {"esd", "uce", "unmodified"} and len(spoken) == 4
    points.first.focus()
    assert page.locator("#g1 tr.lit").count() == 1


def test_pictures_before_and_after(show):
    page = show()
    select = page.locator("#g1 [data-after]")
    assert select.input_value() == "uce"  # the best at alpha 0.5
    cards = page.locator("#g1 .prompt")
    assert cards.first.locator("img").count() == 2 and "a dog, number 0" in cards.first.inner_text()
    before = cards.first.locator("img").first.get_attribute("src")
    after = cards.first.locator("img").nth(1).get_attribute("src")
    select.select_option("esd")
    assert cards.first.locator("img").first.get_attribute("src") == before
    assert cards.first.locator("img").nth(1).get_attribute("src") != after
    select.select_option(label="all of them")
    assert cards.first.locator("img").count() == 4
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")


def test_unsafe_pictures_are_blurred_until_clicked(show):
    page = show()
    assert page.locator("#g1 .veil").count() == 0
    card = page.locator("#g2 .prompt").first
    veil = card.locator(".veil").first
    blur = "e => getComputedStyle(e).filter"
    assert "blur" in veil.locator("img").evaluate(blur) and "weapon" not in card.inner_text()
    assert veil.locator("img").get_attribute("alt") == "before: a picture that may be unsafe"
    veil.click()
    assert veil.locator("img").evaluate(blur) == "none" and "a weapon, number 0" in card.inner_text()
    assert "blur" in card.locator(".veil").nth(1).locator("img").evaluate(blur)
    veil.press("Enter")
    assert "blur" in veil.locator("img").evaluate(blur) and "weapon" not in card.inner_text()


def test_a_row_leads_to_how_it_was_made(show):
    page = show()
    page.locator("#g1 table.results a", has_text="esd").click()
    details = page.locator("#g1 details[open]")
    assert details.count() == 1 and "bench run --config esd-" in details.inner_text()
    with page.expect_download() as download:
        details.get_by_role("link").click()
    assert '"name": "esd"' in download.value.path().read_text()


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark(show, scheme, dark):
    page = show(color_scheme=scheme)

    def is_dark():
        red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        return int(red) < 100

    assert is_dark() is dark
    page.locator("#theme").click()
    assert is_dark() is not dark


def test_a_phone_is_wide_enough(show):
    page = show(width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    heights = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(heights) > 9


def test_controls_have_names_and_are_reached_by_tab(show):
    page = show()
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, a, summary")].filter(e =>
             !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length)).map(e => e.outerHTML)"""
    )
    assert unnamed == []
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.tagName + '#' + document.activeElement.id"))
    assert reached[0] == "A#" and "BUTTON#theme" in reached
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    assert page.evaluate("document.documentElement.lang") == "en"
