"""Every page of a finished run in a real browser: wide and narrow, light and dark, on paper."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.slow

WIDTHS = {"wide": 1200, "phone": 390}
SCHEMES = ("light", "dark")
SERIOUS = ("serious", "critical")
STAGES = ("03_train_mlp", "04_recommend")


@pytest.fixture(scope="module")
def pages(finished) -> dict[str, Path]:
    outputs = finished / "outputs"
    return {str(page.relative_to(outputs)): page for page in sorted(outputs.glob("**/*.html"))}


@pytest.fixture
def open_page(browser):
    """Open a page; what it asks for and complains of is kept beside it."""
    pages = []

    def opened(file, width=1200, scheme="light"):
        looks = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "reduced_motion": "reduce"}
        page = browser.new_page(**looks, bypass_csp=True)
        pages.append(page)
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield opened
    for page in pages:
        page.close()


def test_pages_are_small_load_nothing_and_nothing_complains(pages, open_page):
    assert len(pages) >= 8
    for name, file in pages.items():
        page = open_page(file)
        asked = [address for address in page.asked if not address.startswith("data:")]
        assert asked == [file.as_uri()], name
        assert page.complaints == [] and file.stat().st_size < 3e6, name


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_scrolls_sideways_and_tables_and_figures_fit(pages, open_page, width):
    for name, file in pages.items():
        page = open_page(file, WIDTHS[width])
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        wide = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
            " && !e.closest('.scroll, pre, .highlight, svg, .contents, summary')).map(e => e.outerHTML.slice(0, 80))"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width] and wide == [], (name, wide[:3])
        if width == "wide" or name.endswith("index.html"):  # on a phone, the first column stays while others scroll
            over = page.evaluate(
                "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
                ".map(e => e.getAttribute('aria-label'))"
            )
            assert over == [], name
        sizes = page.evaluate(
            "[...document.querySelectorAll('figure img')].map(e => [e.getBoundingClientRect().width, e.naturalWidth])"
        )
        room = page.evaluate("document.querySelector('main').getBoundingClientRect().width")
        assert all(0.95 * min(room, 992) <= shown <= room for shown, _ in sizes), (name, "figures use the page")
        assert all(shown > 0.9 * own for shown, own in sizes), (name, "no figure is shown smaller than it was drawn")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pictures_are_shown_described_and_of_the_page_s_scheme(pages, open_page, scheme):
    seen = 0
    for name, file in pages.items():
        page = open_page(file, scheme=scheme)
        for image in page.query_selector_all("img"):
            seen += 1
            assert len(image.get_attribute("alt").split()) >= 5, name
            assert image.evaluate("e => e.complete && e.naturalWidth") > 100, name
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        if images := page.query_selector_all("img"):
            corner = images[0].evaluate(
                "async e => { await e.decode(); const c = document.createElement('canvas'); c.width = c.height = 4;"
                " const x = c.getContext('2d'); x.drawImage(e, 0, 0); return [...x.getImageData(1, 1, 1, 1).data] }"
            )
            assert f"rgb({corner[0]}, {corner[1]}, {corner[2]})" == ground, "a figure lies on the ground of its page"
    assert seen >= 10


def test_from_the_index_to_results_and_parameters_of_each_model_in_three_clicks(pages, open_page):
    page = open_page(pages["index.html"])
    page.click("text=smoke")  # one
    rows = page.query_selector_all("tr.model")
    names = [row.query_selector("th a").text_content() for row in rows]
    assert {"mlp", "mf_features", "mf_ids"} <= set(names)
    assert all(row.query_selector('[data-label="AUC"] small').text_content().startswith("[0.") for row in rows)
    for name in names:
        page.click(f'[aria-label="Parameters of {name}"]')  # two
        table = page.wait_for_selector("#parameters")
        assert table.is_visible() and "learning_rate" in table.inner_text(), "the fold is open"
        page.go_back()


def barriers(page) -> set[str]:
    found = Axe().run(page).response["violations"]
    return {f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found if each["impact"] in SERIOUS}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_barrier_on_the_indexes_and_the_reports(pages, open_page, scheme):
    for name in ("index.html", "smoke/index.html", *(f"smoke/reports/{stage}.html" for stage in STAGES)):
        assert barriers(open_page(pages[name], scheme=scheme)) == set(), name


def test_pages_print_whole_and_light(pages, open_page, tmp_path):
    page = open_page(pages["smoke/reports/05_compare.html"], scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 3
