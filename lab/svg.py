"""A matplotlib figure as an SVG element that stands inside an HTML page.

Text stays text, in the page's font (so Hangul needs none of ours); colours are the page's CSS variables (so dark mode
and print change them); ids carry the picture's name (so two pictures in a page do not meet); the same figure gives the
same bytes. Source of what matplotlib writes: matplotlib 3.11.
"""

import io
import os
import re
import warnings
from dataclasses import dataclass
from xml.etree import ElementTree

from lab.cli import ROOT

NAMESPACE, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
SERIES = 6  # colours for lines and bars
# Stand-ins that matplotlib draws with, for the page's CSS variables.
NAMES = ("ink", "muted", "grid", *(f"series-{number}" for number in range(SERIES)))
COLOURS = {name: f"#0102{number:02x}" for number, name in enumerate(NAMES)}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lab",
    "text.parse_math": False,  # a "$" in a name is a "$"
    "font.family": "DejaVu Sans",  # matplotlib's own: the same layout on every machine
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Picture:
    """An SVG element with the title that it carries and a description for those who do not see it."""

    title: str
    description: str
    svg: str


def series(number):
    """The stand-in for the colour of the line or bar `number`, counted from 0."""
    return COLOURS[f"series-{number % SERIES}"]


def label(text):
    """`text` as a legend shows it: matplotlib leaves out what begins with "_"."""
    return f"\u200b{text}" if text.startswith("_") else text


def picture(name, title, description, draw, size):
    """The Picture that `draw(figure)` draws on a figure of `size` inches; its ids begin with `name`."""
    # Beside the lab's other files: matplotlib would write its font list into the home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(ROOT / "runs" / ".matplotlib"))
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = io.BytesIO()
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has one
        figure = Figure(size, layout="constrained")
        draw(figure)
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None, "Creator": None})
    return Picture(title, description, inline(drawn.getvalue(), name, title, description))


def inline(drawn, name, title, description):
    """matplotlib's SVG file (bytes) as an element for a page; see the module."""
    ElementTree.register_namespace("", NAMESPACE)
    name = f"svg-{name}"  # no section of the page is called so
    root = ElementTree.fromstring(drawn)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.rpartition("}")[2] in ("metadata", "style")]:
            parent.remove(child)
    for element in root.iter():
        _mend(element, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}  # what the removed style element said
    for place, (kind, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{NAMESPACE}}}{kind}", {"id": f"{name}-{kind}"})
        element.text = text
        root.insert(place, element)
    text = ElementTree.tostring(root, encoding="unicode")
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    return text


def _mend(element, name):
    """Give an element's ids and references the picture's name, and its text the page's font."""
    attributes = element.attrib
    if XLINK in attributes:
        attributes["href"] = attributes.pop(XLINK)
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if attributes.get("href", "").startswith("#"):
        attributes["href"] = f"#{name}-{attributes['href'][1:]}"
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{name}-")
    if "style" in attributes:
        attributes["style"] = re.sub(r"font-family:[^;]*;? ?", "", attributes["style"])
