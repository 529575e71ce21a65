"""The page: what it says, that nothing in a dataset can become markup, and that it needs no network."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from qsm_dask.report.charts import Value, strip_plot
from qsm_dask.report.pages import (
    Notice,
    Page,
    Picture,
    ScanLine,
    Source,
    StepLine,
    decimals,
    duration,
    group,
    listing,
    render,
    size,
)

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>&"\''


class Reader(HTMLParser):
    """Elements with their attributes, in order, and the text."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(text: str = "plain") -> Page:
    """A page in which every place that takes text holds `text`."""
    picture = Picture("scans/sub-01.png", 880, 700, ("Susceptibility", "R2*"), 32.5)
    done = ScanLine("sub-01", (text,), "done", "", 75.0, 1_400_000_000, ((0.0312, -0.0004),), picture, (text,))
    failed = ScanLine("sub-02", (text,), "failed", text, 0.0, 0, ((math.nan, math.nan),), None)
    values = {("putamen", "left"): [Value("sub-01", 0.03)], ("putamen", "right"): [Value("sub-01", -0.02)]}
    chart = strip_plot(text, "ppm", values)
    assert chart is not None
    return Page(
        title=text,
        pipeline=text,
        pipeline_summary=text,
        counts={"done": 1, "failed": 1, "skipped": 0},
        scans=(done, failed),
        participant_columns=(text,),
        value_columns=("putamen",),
        failures=(Notice(text, ("sub-02",)),),
        warnings=(Notice(text, tuple(f"sub-{n:02d}" for n in range(9))), Notice(text, ())),
        charts=(chart,),
        sources=(Source("chi", text, "ppm", ((text, 1),)),),
        steps=(StepLine(text, text, "10.1002/mrm.22135"),),
        steps_scan="sub-01",
        versions={text: text},
        files=(("../tables/regions.tsv", text),),
        newest=text,
        reference=text,
        hidden_regions=3,
    )


def test_texts_of_a_dataset_never_become_markup() -> None:
    plain, evil = Reader(render(page())), Reader(render(page(EVIL)))
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert not evil.all("script")
    assert not any(name.startswith("on") for _, attributes in evil.elements for name in attributes)
    assert evil.text.count(EVIL) >= 12


def test_the_page_needs_no_network_and_no_script() -> None:
    html = render(page()).decode()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    reader = Reader(html.encode())
    assert not reader.all("script")
    assert not reader.all("link")
    for tag, attributes in reader.elements:
        for name in ("src", "href"):
            if name in attributes:
                assert re.match(r"#|scans/|\.\./tables/", attributes[name]), (tag, attributes)


def test_every_link_inside_the_page_has_its_end() -> None:
    known = page()
    reader = Reader(render(replace(known, warnings=known.warnings[1:])))
    ends = {attributes["id"] for _, attributes in reader.elements if "id" in attributes}
    links = {attributes["href"][1:] for attributes in reader.all("a") if attributes["href"].startswith("#")}
    assert links - ends == set()
    assert len(ends) == sum("id" in attributes for _, attributes in reader.elements)


def test_pictures_are_lazy_sized_and_described() -> None:
    (image,) = Reader(render(page())).all("img")
    assert (image["loading"], image["width"], image["height"]) == ("lazy", "880", "700")
    assert image["alt"] == "sub-01: Susceptibility and R2*, each in three axial, a coronal and a sagittal cut"
    graphics = [attributes for tag, attributes in Reader(render(page())).elements if tag == "svg"]
    assert all("aria-label" in attributes or attributes.get("aria-hidden") == "true" for attributes in graphics)


def test_a_mark_leads_to_its_scan_and_says_what_it_is() -> None:
    marks = [a for a in Reader(render(page())).all("a") if a.get("aria-label", "").startswith("sub-01, ")]
    assert [(mark["href"], mark["aria-label"]) for mark in marks] == [
        ("#sub-01", "sub-01, putamen left: 0.03 ppm"),
        ("#sub-01", "sub-01, putamen right: −0.02 ppm"),
    ]


def test_what_a_reader_sees() -> None:
    text = " ".join(Reader(render(page())).text.split())
    assert "2 scans 1 ✓ done 1 ✕ failed" in text
    assert "1 min 15 s" in text
    assert "1.4 GB" in text
    assert "0.031 0.000" in text  # left above right, no sign on zero
    assert "Oblique by 32°" in text
    assert "doi:10.1002/mrm.22135" in text
    assert "3 further structures" in text


def test_an_empty_cohort_has_a_page() -> None:
    text = Reader(render(Page("New", "", "", {}, ()))).text
    assert "Not processed yet" in text
    assert "No scan has maps to draw yet." in text


def test_many_scans_with_one_trouble_are_one_notice() -> None:
    pairs = [(f"sub-{n:02d}: the mask is empty", f"sub-{n:02d}") for n in (3, 1, 2)]
    notices = group([("of the cohort", ""), *pairs, pairs[0], ("TE is missing", "sub-09")])
    assert notices == (
        Notice("the mask is empty", ("sub-01", "sub-02", "sub-03")),
        Notice("TE is missing", ("sub-09",)),
        Notice("of the cohort", ()),
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_other_words() -> None:
    assert (size(512_000_000), size(1_340_000_000)) == ("512 MB", "1.3 GB")
    assert (decimals(-0.0312), decimals(-0.0001), decimals(math.nan)) == ("−0.031", "0.000", "–")
    assert (listing(["a", "b", "c"]), listing(["a"]), listing([])) == ("a, b and c", "a", "")
