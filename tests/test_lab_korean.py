import pytest

from lab.korean import comparable, fill, particle


@pytest.mark.parametrize(
    ("word", "pair", "expected"),
    [
        ("파리", "은는", "파리는"),
        ("물", "은는", "물은"),
        ("서울", "으로", "서울로"),
        ("부산", "으로", "부산으로"),
        ("GPU", "이가", "GPU가"),
        ("SolverX Fusion", "은는", "SolverX Fusion은"),
        ("3", "이다", "3이다"),
        ("2", "이다", "2다"),
        ("1", "으로", "1로"),
    ],
)
def test_particle_agrees_with_how_the_word_is_read(word, pair, expected):
    assert particle(word, pair) == expected


def test_unknown_particle_is_named():
    with pytest.raises(ValueError, match="ㅋㅋ"):
        particle("물", "ㅋㅋ")


def test_fill_needs_every_slot():
    assert fill("{a:은는} {b:이다}.", {"a": "물", "b": "H2O"}) == "물은 H2O다."
    with pytest.raises(KeyError):
        fill("{a} {b}", {"a": "물"})


def test_comparable_ignores_case_space_punctuation_and_normal_form():
    assert comparable("Solver X의, 본사?") == comparable("SOLVERX의본사")
    assert comparable("\u1100\u1161\u11a8") == comparable("\uac01")  # decomposed and composed
    assert comparable("물") != comparable("불")
