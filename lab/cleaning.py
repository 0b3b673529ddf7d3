"""Text made fit for training: Unicode, HTML, links, control characters and white space, each change counted.

What stands in ``` fences or `backticks` is code: of the steps only `control` and `nfc` touch it. Cleaning what is clean
changes nothing: the steps are repeated until the text stays as it is, so HTML that was escaped twice goes too.
"""

import html
import re
import unicodedata
from itertools import count

STEPS = {  # in the order in which they are taken
    "control": "control and zero-width characters removed",
    "nfc": "Unicode composed (NFC)",
    "html": "HTML tags and entities resolved",
    "links": "URLs and e-mail addresses removed",
    "whitespace": "white space folded",
}
SHOWN = 120  # characters of an example
ROUNDS = 30  # tags within tags and entities of entities that deep are no text: their < and & go

CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
# Of the joiners only those after Hangul, ASCII or nothing: between emoji they make one picture of several.
CONTROL = re.compile(
    r"\x1b\[[0-9;]*+[A-Za-z]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ud800-\udfff\ufdd0-\ufdef\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff]"
    r"|(?:\A|(?<=[\x00-\x7f\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]))[\u200c\u200d]+"
)
BLOCK = (
    "address article aside blockquote body br caption center dd div dl dt fieldset figcaption figure footer form h1 h2 h3"
    " h4 h5 h6 head header hr html legend li main nav ol option p pre section select table tbody tfoot thead title tr ul"
).split()
CELL = ["td", "th"]
INLINE = (
    "a abbr acronym audio b base bdi bdo big button cite code col colgroup del dfn em embed font i iframe img input ins"
    " kbd label link map mark meta nobr noscript object param picture q rp rt ruby s samp script small source span strike"
    " strong style sub summary sup svg textarea time tt u var video wbr"
).split()
BARE = (  # attributes that stand without a value; others do not, or `a <b and c> d` would be a tag
    "allowfullscreen async autofocus autoplay checked controls default defer disabled hidden itemscope loop multiple muted"
    " nowrap open readonly required reversed selected"
).split()
VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"'<>=`]+)"""
ATTRIBUTES = rf"(?:\s++(?:[A-Za-z_:@][\w:.@-]*+\s*+=\s*+{VALUE}|(?:{'|'.join(BARE)})(?=[\s/>])))*+\s*+/?>"
TAG = re.compile(
    rf"</?({'|'.join(sorted(BLOCK + CELL + INLINE, key=len, reverse=True))}){ATTRIBUTES}", re.IGNORECASE
)
# What stands between does not open the same again: each search ends at the next opening, however hostile the text.
UNSEEN = re.compile(
    r"<!--(?:[^<-]++|<(?!!--)|-(?!->))*+-->|<!DOCTYPE[^<>]*+>"
    rf"|<(script|style){ATTRIBUTES}(?:[^<]++|<(?!/?\1\b))*+</\1\s*+>",
    re.IGNORECASE,
)
PRE = re.compile(rf"<pre{ATTRIBUTES}((?:[^<]++|<(?!/?pre\b))*+)</pre\s*+>", re.IGNORECASE)
SPAN = re.compile(rf"<code{ATTRIBUTES}((?:[^`\n<]++|<(?!/?code\b))*+)</code\s*+>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:amp;)*(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# ASCII alone: a Korean particle stands right behind an address. Source: RFC 3986, appendix A, without brackets.
ADDRESS = r"(?:(?:https?|ftp)://|(?<![A-Za-z0-9_.])(?:www|WWW)\.)[A-Za-z0-9\-._~:/?#@!$&'*+,;=%]*[A-Za-z0-9\-_~/#@$&*+=%]"
MAIL = r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]++@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
LINK = re.compile(rf"\[([^\[\]\n]*)\]\(\s*{ADDRESS}\s*\)|[(<\[]\s*(?:{ADDRESS}|{MAIL})\s*[)>\]]|{ADDRESS}|{MAIL}")
NEW_LINE = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
SPACE = re.compile(rf"({CODE.pattern})|[^\S\n]*+\n\s*+|[^\S\n]+", re.DOTALL)


def is_clean(text):
    """Whether `text` certainly needs no step: what most rows are, told without a regular expression."""
    if not text.isprintable() and (
        not text.replace("\n", "").isprintable() or " \n" in text or "\n\n\n" in text or "\n " in text
    ):
        return False
    suspect = (
        "<" in text
        or "&" in text
        or "@" in text
        or "://" in text
        or "www." in text
        or "WWW." in text
        or "  " in text
    )
    if suspect or "\u3164" in text or "\uffa0" in text:
        return False
    return text == text.strip() and unicodedata.is_normalized("NFC", text)


def clean(text, links=False):
    """`text` cleaned; addresses stay with `links`. clean(clean(text)) == clean(text)."""
    return cleaned(text, links)[0]


def cleaned(text, links=False):
    """(`text` cleaned, {step: (before, after)} of the steps that changed it)."""
    changed = {}
    if is_clean(text):
        return text, changed
    for round_number in count(1):
        before_all = text
        if round_number == ROUNDS:
            text = re.sub("[<&`]", " ", text)
        for step in STEPS:
            if step == "links" and links:
                continue
            before, text = text, _TAKE[step](text, "html" in changed)
            if text != before:
                changed.setdefault(step, (before, text))
        if text == before_all:
            return text, changed


class Cleaner:
    """`cleaned` with a memory: how many texts each step changed, and the first example of each."""

    def __init__(self, links=False):
        self.links, self.texts = links, 0
        self.counts, self.examples = dict.fromkeys(STEPS, 0), {}

    def __call__(self, text, where):
        """`text` cleaned; `where` is told with an example."""
        self.texts += 1
        text, changed = cleaned(text, self.links)
        for step, (before, after) in changed.items():
            self.counts[step] += 1
            if step not in self.examples:
                self.examples[step] = {"where": where, **_around(before, after)}
        return text

    def results(self):
        """The counts and examples as they stand in a summary."""
        steps = {step: {"changed": count, **self.examples.get(step, {})} for step, count in self.counts.items()}
        return {"texts": self.texts, "steps": steps}


def _around(before, after):
    """{"before", "after"}: SHOWN characters of both, from a little before where they begin to differ."""
    same = next(
        (i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), min(len(before), len(after))
    )
    start = max(0, same - SHOWN // 4)
    return {"before": before[start : start + SHOWN], "after": after[start : start + SHOWN]}


def _outside_code(text, change):
    """`text` with `change` applied to what is not code."""
    kept, done, end = [], 0, len(text)
    for match in CODE.finditer(text):
        kept += [change(text[done : match.start()]), match[0]]
        done = match.end()
    return "".join([*kept, change(text[done:end])])


def _control(text, _):
    return CONTROL.sub("", NEW_LINE.sub("\n", text))


def _nfc(text, _):
    return unicodedata.normalize("NFC", text)


def _html(text, _):
    if "<" in text:
        text = _outside_code(text, _as_code)  # before the rest, which would take the marks out of code
    if "<" in text or "&" in text:
        text = _outside_code(text, _plain)
    return text


def _as_code(text):
    """HTML's own code elements as Markdown's."""
    return _outside_code(PRE.sub(_fence, text), lambda rest: SPAN.sub(_span, rest))


def _fence(match):
    inside = _plain(match[1]).strip("\n")
    return f"\n```\n{inside}\n```\n" if inside.strip() else "\n"


def _span(match):
    inside = _plain(match[1])
    return f"`{inside}`" if inside.strip() and not re.search("[`\n]", inside) else inside


def _plain(text):
    text = TAG.sub(_gap, UNSEEN.sub("", text))
    return ENTITY.sub(lambda match: html.unescape(re.sub("^&(?:amp;)+", "&", match[0])), text)


def _gap(match):
    name = match[1].lower()
    return "\n" if name in BLOCK else " " if name in CELL else ""


def _links(text, _):
    if "@" not in text and "://" not in text and "www." not in text and "WWW." not in text:
        return text
    return _outside_code(text, lambda rest: LINK.sub(lambda match: match[1] or "", rest))


def _whitespace(text, flat):
    """Runs of blanks as one, at most one empty line; a line's indentation stays, unless HTML stood there (`flat`)."""

    def fold(match):
        if match[1]:
            return match[1]
        lines, _, indentation = match[0].rpartition("\n")
        if "\n" not in match[0]:
            return " "
        return "\n" * min(2, lines.count("\n") + 1) + ("" if flat else re.sub(r"[^ \t]", " ", indentation))

    return SPACE.sub(fold, text).strip()


_TAKE = {"control": _control, "nfc": _nfc, "html": _html, "links": _links, "whitespace": _whitespace}
