"""The page as HTML and Markdown: well formed, self-contained, everything escaped, readable in both colour schemes."""

import json
import re
from html.parser import HTMLParser

import pytest

import render_report
from lab import page
from lab.page import Cell, Section, Table
from tests import made_runs

VOID = {"meta", "link", "br", "hr", "img", "input"}
LINKS = ("href", "src", "xlink:href", "action", "data", "srcset", "poster")


class Checker(HTMLParser):
    """Collects what is wrong with a page, and what stands in it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.ids, self.wanted, self.tags, self.words = [], [], [], [], [], []
        self.feed(text)
        self.close()
        self.faults += [f"not closed: {tag}" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name.startswith("on"):
                self.faults.append(f"script: {name}")
            if name in LINKS and not value.startswith("#"):
                self.faults.append(f"outside: {value}")
            self.wanted += [value[1:]] if name in LINKS else value.split() if name == "aria-labelledby" else []
            self.wanted += re.findall(r"url\(#([^)]+)\)", value or "")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"closed and not open: {tag} at {self.getpos()}")

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """(title, lead, sections) of a run with every part."""
    run = made_runs.whole(tmp_path_factory.mktemp("whole"))
    return render_report.build(run, render_report.read(run))


@pytest.fixture(scope="module")
def checked(parts):
    return Checker(page.to_html(*parts))


def test_the_page_is_well_formed_and_names_nothing_twice(checked):
    assert checked.faults == []
    assert checked.open == []
    assert len(checked.ids) == len(set(checked.ids))
    assert set(checked.wanted) <= set(checked.ids)
    assert "script" not in checked.tags and "iframe" not in checked.tags


def test_the_page_loads_nothing(parts):
    text = page.to_html(*parts)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert {found for found in re.findall(r"https?://[^\s\"'<)]+", text)} == {"http://www.w3.org/2000/svg"}


def test_pictures_say_what_they_show(parts, checked):
    pictures = [picture for section in parts[2] for picture in section.pictures]
    assert len(pictures) >= 6
    assert checked.tags.count("svg") == len(pictures) == checked.tags.count("desc")
    said = "".join(checked.words)
    for picture in pictures:
        assert picture.title in said and picture.description in said


def test_tables_have_captions_and_named_rows_and_columns(parts, checked):
    tables = [table for section in parts[2] for table in section.tables]
    assert checked.tags.count("table") == checked.tags.count("caption") == len(tables)
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.head)}, table.caption


def test_an_answer_is_shown_letter_for_letter(parts):
    text = page.to_html(*parts)
    assert "&lt;script&gt;alert" in text
    assert made_runs.HOSTILE in "".join(Checker(text).words)
    markdown = page.to_markdown(*parts)
    assert "&lt;script&gt;alert" in markdown and "<script>" not in markdown
    assert "\\| \\`code\\`" in markdown


def test_names_from_json_are_escaped_wherever_they_stand(tmp_path):
    run, names = made_runs.whole(tmp_path), {}
    for place in ("stage", "subject", "group", "point", "prompt", "folder", "commit", "tuned", "kind"):
        names[place] = f"<i>\"&'$x$_{place}</i>"
    report, kmmlu, forgetting = (
        made_runs.report(("base", names["stage"], "sft")),
        made_runs.kmmlu(),
        made_runs.forgetting(),
    )
    kmmlu = made_runs.kmmlu(subjects={names["subject"]: names["group"], "Law": "HUMSS"})
    kmmlu["stages"][names["stage"]] = kmmlu["stages"].pop("cpt")
    forgetting["points"][0]["name"] = names["point"]
    report["samples"][0]["prompt"] = names["prompt"]
    report["data"] = {names["folder"]: report["data"]["data_sft"]}
    report["commit"] = names["commit"]
    models = made_runs.comparison(("base", names["tuned"], "other"))
    models["sizes"]["other"]["kind"] = names["kind"]
    parts = {"report": report, "kmmlu": kmmlu, "forgetting": forgetting, "models": models}
    for file, content in parts.items():
        made_runs.write(run / f"{file}.json", content)
    found = Checker(page.to_html(*render_report.build(run, render_report.read(run))))
    assert found.faults == [] and "i" not in found.tags
    for name in names.values():
        assert name in "".join(found.words)


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\ud800", "\uffff"])
def test_characters_that_no_page_can_show_are_replaced(tmp_path, character):
    run = tmp_path / "run"
    report = made_runs.report(("base", f"c{character}t", "sft"))
    report["samples"][0]["prompt"] = f"a{character}b"
    run.mkdir()
    (run / "report.json").write_text(json.dumps(report), encoding="utf-8")
    text = page.to_html(*render_report.build(run, render_report.read(run)))
    assert "a\ufffdb" in text and "c\ufffdt" in text and character not in text
    text.encode("utf-8")


def test_markdown_holds_the_tables_of_the_page(parts):
    lines = page.to_markdown(*parts).splitlines()
    tables = [table for section in parts[2] for table in section.tables]
    rules = [line for line in lines if re.fullmatch(r"\|(---\|)+", line)]
    assert [rule.count("---") for rule in rules] == [len(table.head) for table in tables]
    for number, line in enumerate(lines):
        if line in rules:
            bars = [len(re.findall(r"(?<!\\)\|", text)) for text in (lines[number - 1], lines[number + 1])]
            assert bars == [line.count("---") + 1] * 2


def test_markdown_keeps_text_on_its_line():
    assert page.in_markdown("a|b\n*c* <d> [e](f) #g") == "a\\|b<br>\\*c\\* &lt;d&gt; \\[e\\](f) \\#g"


def test_right_and_wrong_are_told_without_colour():
    answers = Table("t", ["q", "a", "b"], [["x", Cell("yes", "right"), Cell("no", "wrong")]])
    sections = [Section("s", "S", tables=[answers])]
    words = "".join(Checker(page.to_html("t", "l", sections)).words)
    assert "✓ yes" in words and "✗ no" in words
    assert "| x | ✓ yes | ✗ no |" in page.to_markdown("t", "l", sections)


@pytest.mark.parametrize(
    ("text", "language"), [("너는 누구니?", "ko"), ("who?", "en"), ("SolverX는", "ko"), ("", "en")]
)
def test_language_is_told_to_who_reads_aloud(text, language):
    assert page.language(text) == language


def luminance(colour):
    """Of "#rrggbb". Source: WCAG 2.2, relative luminance."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_enough_in_light_dark_and_print():
    """Source: WCAG 2.2, 1.4.3 (text, 4.5) and 1.4.11 (lines and bars, 3)."""
    style = (page.TEMPLATES / "report.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{([^}]*)\}", style)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for name, least in (
            ("ink", 4.5),
            ("muted", 4.5),
            ("link", 4.5),
            ("right", 4.5),
            ("wrong", 4.5),
            ("unsure", 4.5),
        ):
            assert contrast(scheme[name], scheme["paper"]) >= least, name
        for number in range(6):
            assert contrast(scheme[f"series-{number}"], scheme["paper"]) >= 3, number
        assert contrast(scheme["ink"], scheme["warn"]) >= 4.5


def contrast(one, other):
    """The contrast ratio of two colours, from 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
