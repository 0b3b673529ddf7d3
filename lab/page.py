"""The report as one HTML page and as Markdown, both of the same sections: texts, tables, pictures, nothing computed here.

Everything that comes from JSON is escaped; the page loads nothing and runs nothing.
"""

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

from lab.svg import Picture

TEMPLATES = Path(__file__).parent / "templates"
MARKS = {
    "right": "✓ ",
    "wrong": "✗ ",
    "holds": "✓ ",
    "does not hold": "✗ ",
    "undecided": "? ",
    "not measured": "– ",
}
HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
IN_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")


@dataclass(frozen=True)
class Cell:
    """A table's cell: text, and a mark out of MARKS where it is a judgement. `prose` is text that may be long."""

    text: str
    mark: str = ""
    prose: bool = False

    @property
    def sign(self):
        """What is written in front, so that no colour has to be seen."""
        return MARKS.get(self.mark, "")


@dataclass(frozen=True)
class Table:
    """A caption, column names, and rows of Cells or strings, of which the first names the row."""

    caption: str
    head: list
    rows: list
    note: str = ""

    def cells(self):
        """The rows with every string as a Cell."""
        return [[cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Section:
    """A part of the report; `missing` is the command that would measure it, where that was not run."""

    id: str
    title: str
    texts: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    commands: list = field(default_factory=list)
    missing: str = ""
    warning: str = ""


def readable(value):
    """JSON content with every character that no page can show (control characters, half characters) as U+FFFD."""
    if isinstance(value, str):
        return UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [readable(item) for item in value]
    if isinstance(value, dict):
        return {readable(key): readable(item) for key, item in value.items()}
    return value


def language(text):
    """ "ko" for text with Hangul in it, else "en": the page's own language."""
    return "ko" if HANGUL.search(text) else "en"


def to_html(title, lead, sections):
    """The page as text; the same sections give the same bytes."""
    return (
        _environment(autoescape=True)
        .get_template("report.html.jinja")
        .render(
            title=title, lead=lead, sections=sections, style=(TEMPLATES / "report.css").read_text(encoding="utf-8")
        )
    )


def to_markdown(title, lead, sections):
    """The same texts and tables as Markdown, for a model card."""
    template = _environment(autoescape=False).get_template("report.md.jinja")
    return re.sub(r"\n{3,}", "\n\n", template.render(title=title, lead=lead, sections=sections)).strip() + "\n"


def in_markdown(text):
    """`text` as one line of Markdown that shows it letter for letter."""
    escaped = IN_MARKDOWN.sub(r"\\\1", html.escape(text, quote=False))
    return "<br>".join(line.strip() for line in escaped.splitlines())


def _environment(autoescape):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options = {
        "trim_blocks": True,
        "lstrip_blocks": True,
        "keep_trailing_newline": True,
        "undefined": StrictUndefined,
    }
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=autoescape, **options)
    made.filters |= {"language": language, "md": in_markdown}
    return made
