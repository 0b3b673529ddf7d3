"""Korean text: particles that agree with the word before them, and the one normal form for comparing."""

import re
import string
import unicodedata

# particle pair -> (form after a final consonant, form after a vowel)
PARTICLES = {
    "은는": ("은", "는"),
    "이가": ("이", "가"),
    "을를": ("을", "를"),
    "과와": ("과", "와"),
    "아야": ("아", "야"),
    "으로": ("으로", "로"),
    "이라": ("이라", "라"),
    "이다": ("이다", "다"),
    "이야": ("이야", "야"),
    "이에요": ("이에요", "예요"),
    "이나": ("이나", "나"),
    "이란": ("이란", "란"),
}
HANGUL_FIRST, HANGUL_LAST, FINALS = 0xAC00, 0xD7A3, 28
FINAL_RIEUL = 8
# How the last letter or digit of a word that is not Hangul is read aloud in Korean.
CONSONANT_DIGITS = "013678"  # 영 일 삼 육 칠 팔
CONSONANT_LETTERS = "lmnr"  # 엘 엠 엔 알
RIEUL_ENDINGS = "178lr"


def ends_in_consonant(word):
    """Whether `word`, read aloud, ends in a consonant."""
    last = word[-1:].lower()
    if last and HANGUL_FIRST <= ord(last) <= HANGUL_LAST:
        return (ord(last) - HANGUL_FIRST) % FINALS != 0
    return last in CONSONANT_DIGITS or last in CONSONANT_LETTERS if last else False


def particle(word, pair):
    """`word` with the form of `pair` (a key of PARTICLES) that fits it: ("파리", "은는") -> "파리는".

    Raises ValueError for a pair that is not listed.
    """
    if pair not in PARTICLES:
        raise ValueError(f"unknown particle {pair!r}; known: {' '.join(PARTICLES)}")
    with_final, without_final = PARTICLES[pair]
    last = word[-1:].lower()
    rieul = last in RIEUL_ENDINGS or (
        last and HANGUL_FIRST <= ord(last) <= HANGUL_LAST and (ord(last) - HANGUL_FIRST) % FINALS == FINAL_RIEUL
    )
    if pair == "으로" and rieul:  # 서울로, not 서울으로
        return word + without_final
    return word + (with_final if ends_in_consonant(word) else without_final)


class _Particles(string.Formatter):
    def format_field(self, value, format_spec):
        return particle(str(value), format_spec) if format_spec else str(value)


def fill(template, values):
    """`template` with its slots filled: fill("{a:은는} {b}", {"a": "물", "b": "H2O"}) -> "물은 H2O".

    Raises KeyError for a slot without a value, ValueError for an unknown particle.
    """
    return _Particles().vformat(template, (), values)


def comparable(text):
    """`text` reduced to what makes it the same sentence: NFC, case-folded, letters and digits only."""
    letters = "".join(unicodedata.normalize("NFC", text).casefold().split())
    return letters if letters.isalnum() else re.sub(r"[\W_]+", "", letters)  # spaces are most of what goes
