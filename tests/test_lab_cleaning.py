"""lab/cleaning: what each step takes away, what survives, and that cleaning twice is cleaning once."""

import random
import time
import unicodedata

import pytest

from lab.cleaning import STEPS, Cleaner, clean, cleaned, is_clean

PIECES = [
    *(
        "가",
        "각하",
        "서울은",
        "수도",
        "가나",
        "ㅋㅋ",
        "1,234원",
        "C++",
        "a < b",
        "x<y>z",
        "R&D",
        "3 > 2",
        "Vec<i32>",
    ),
    *(
        "<b>",
        "</b>",
        "<p class='x'>",
        "<br/>",
        "<td>",
        "<!-- c -->",
        "<script>alert(1)</script>",
        "<",
        ">",
        "&",
        ";",
    ),
    *("&lt;", "&gt;", "&amp;", "&nbsp;", "&amp;amp;lt;", "&#39;", "&#x200b;", "&nosuch;", "<pre>", "</pre>"),
    *("<code>", "</code>", "```", "`", "\n", "\n\n\n", "\r\n", "  ", "\t", "\u00a0", "\u3000", "\u200b", "\ufeff"),
    *(
        "\u200d",
        "👨\u200d👩\u200d👧",
        "\x00",
        "\x1b[31m",
        "\u0301",
        "é",
        "http://a.b/c?d=1&e",
        "www.x.kr",
        "a@b.co",
    ),
    *(
        "https://",
        "(",
        ")",
        "[문서](https://d.e/f)",
        "\u1100",
        "\u1161",
        "\u2028",
        "\u3164",
        "@",
        "://",
        "    x = 1",
    ),
]


def texts(number, seed=0):
    draw = random.Random(seed)
    return ["".join(draw.choices(PIECES, k=draw.randrange(1, 14))) for _ in range(number)]


def test_cleaning_twice_is_cleaning_once():
    for text in texts(4000):
        for links in (False, True):
            once = clean(text, links)
            assert clean(once, links) == once, repr(text)


def test_what_is_told_to_be_clean_is_what_no_step_changes():
    told = 0
    for text in [clean(text) for text in texts(1500, 1)] + texts(1500, 2):
        if is_clean(text):
            told += 1
            spaced = f"{text}\u200b"  # forces the steps, and is gone after the first
            assert clean(spaced) == text
    assert told > 300


@pytest.mark.parametrize(
    ("dirty", "expected", "steps"),
    [
        ("한글", "한글", []),
        (unicodedata.normalize("NFD", "한글"), "한글", ["nfc"]),
        ("가\u200b나\x07다\ufeff", "가나다", ["control"]),
        ("가\u200d나 👨\u200d👩\u200d👧", "가나 👨\u200d👩\u200d👧", ["control"]),
        ("\x1b[1m굵게\x1b[0m", "굵게", ["control"]),
        ("<p>안녕 <b>하세요</b></p><p>둘</p>", "안녕 하세요\n\n둘", ["html", "whitespace"]),
        ("이름<br>주소", "이름\n주소", ["html"]),
        ("<tr><td>가</td><td>나</td></tr>", "가 나", ["html", "whitespace"]),
        ("R&amp;D &quot;값&quot;&#51;", 'R&D "값"3', ["html"]),
        ("글<script>let x = '<b>';</script><!-- 뒤 -->", "글", ["html"]),
        ("자세히는 https://solverx.ai/a?b=1&c=2를 보세요", "자세히는 를 보세요", ["links"]),
        ("[문서](https://d.e/f)와 (www.x.kr)", "문서와", ["links", "whitespace"]),
        ("문의: help.me@solver-x.co.kr로", "문의: 로", ["links"]),
        ("  가   나\t다\u00a0라 \n\n\n\n 마", "가 나 다 라\n\n 마", ["whitespace"]),
    ],
)
def test_each_step(dirty, expected, steps):
    text, changed = cleaned(dirty)
    assert (text, [step for step in STEPS if step in changed]) == (expected, steps)


@pytest.mark.parametrize(
    "text",
    [
        "a < b 그리고 c > d",
        "if a<b and c>d: 멈춘다",
        "std::vector<int> x; Map<String, T> y",
        "i <- 3; x <= y",
        "AT&T와 R&D, a=1&copy=2",
        "@이름에게, 3@5",
        "def f(x):\n    if x < 3:\n        return x[0]\n    return 1",
        "`<b>굵게</b>`는 굵게, `&lt;`는 <",
        "```html\n<p>  두 칸  </p>\n\n\n\nhttps://a.b\n```",
        "```\n닫히지 않은 <b>  코드",
        "여러 줄\n\n문단 둘",
    ],
)
def test_what_is_no_html_and_what_is_code_survives(text):
    assert cleaned(text) == (text, {})


def test_html_code_becomes_markdown_code():
    html = "<p>예:</p><pre><code>for i in x:\n    if i &lt; 3: f(<b>i</b>)</code></pre><p>또 <code>a &lt; b</code></p>"
    assert clean(html) == "예:\n\n```\nfor i in x:\n    if i < 3: f(i)\n```\n\n또 `a < b`"


def test_links_can_stay():
    text = "주소는 https://solverx.ai 이고 메일은 a@b.co 입니다."
    assert clean(text, links=True) == text
    assert clean(text) == "주소는 이고 메일은 입니다."


def test_a_hostile_text_takes_no_time():
    hostile = ["<" * 20000, "&amp;" * 20000 + "lt;", "a" * 80000 + "@", "<!--" * 5000, "<b " * 20000, "`" * 40001]
    hostile += ["<a x=" * 20000, " " * 80000 + "x", "\n " * 40000, "[" * 30000 + "](https://a.b"]
    hostile += ["<pre>" * 5000, "<script>" * 5000, "<code>" * 5000, "-->" + "<!--" * 9000, "a.b" * 20000 + "@"]
    hostile += ["<" * 3000 + "b>" * 3000]
    started = time.process_time()
    for text in hostile:
        clean(text)
    assert time.process_time() - started < 4


def test_the_cleaner_counts_texts_and_keeps_the_first_example():
    cleaner = Cleaner()
    for place, text in enumerate(["깨끗하다", "<b>하나</b>", "<i>둘</i>  셋"]):
        cleaner(text, f"x.csv:{place}")
    found = cleaner.results()
    assert found["texts"] == 3
    assert {name: step["changed"] for name, step in found["steps"].items() if step["changed"]} == {
        "html": 2,
        "whitespace": 1,
    }
    assert found["steps"]["html"] == {"changed": 2, "where": "x.csv:1", "before": "<b>하나</b>", "after": "하나"}
