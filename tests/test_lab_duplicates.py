"""lab/duplicates: the pairs found are those that comparing all with all finds."""

import random
import tracemalloc

import pytest

from lab import duplicates
from lab.duplicates import BLOCK, near_pairs
from lab.korean import comparable
from lab.leaks import NEAR, similarity, trigrams

WORDS = "서울 부산 공장 본사 제품 무엇 인가요 알려 줘 어디 에 있나요 A B 12 3 ! 네".split()


def near_texts(number, seed):
    """Texts of which half are an earlier one with a letter or two changed; some are short or have no letters."""
    draw, texts = random.Random(seed), []
    for _ in range(number):
        if texts and draw.random() < 0.5:
            letters = list(draw.choice(texts))
            for _ in range(draw.choice((0, 1, 1, 2))):
                place = draw.randrange(len(letters) + 1)
                letters[place : place + draw.choice((0, 1))] = draw.choice("가나다 !")
            texts.append("".join(letters))
        else:
            texts.append(" ".join(draw.choices(WORDS, k=draw.randrange(0, 12))))
    return texts


def brute(texts):
    grams = [trigrams(text) if comparable(text) else None for text in texts]
    known = [place for place, own in enumerate(grams) if own]
    return [(j, i) for j in known for i in known if i < j and similarity(grams[j], grams[i]) >= NEAR]


@pytest.mark.parametrize("seed", range(3))
def test_the_pairs_are_those_of_comparing_all_with_all(seed):
    texts = near_texts(300, seed)
    expected = brute(texts)
    assert len(expected) > 50
    assert list(near_pairs(lambda: iter(texts), texts.__getitem__)) == expected
    answers = [random.Random(place).randrange(3) for place in range(300)]
    same = [(j, i) for j, i in expected if answers[j] == answers[i]]
    assert list(near_pairs(lambda: iter(texts), texts.__getitem__, answers)) == same != expected


def test_a_text_at_exactly_the_threshold_is_a_pair():
    first = "abcdefghijk"  # 9 trigrams; of 8 + 10 shared 8: 8/10
    second = "abcdefghijx"
    third = "abcdefghij"
    assert similarity(trigrams(first), trigrams(second)) == 0.8
    texts = [first, second, third]
    assert list(near_pairs(lambda: iter(texts), texts.__getitem__)) == brute(texts) == [(1, 0), (2, 0), (2, 1)]


def test_what_was_dropped_is_paired_no_more():
    texts, dropped = ["같은 문장이 여기 있습니다"] * 5, set()
    found = []
    for later, earlier in near_pairs(lambda: iter(texts), texts.__getitem__, None, dropped):
        found.append((later, earlier))
        dropped.add(later)
    assert found == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_pairs_are_found_across_blocks_and_nothing_comes_of_nothing():
    filler = [f"{random.Random(place).random()}번 문서" for place in range(BLOCK)]
    texts = ["서울 공장은 어디에 있나요?", *filler, "서울 공장은 어디에 있나요"]
    found = list(near_pairs(lambda: iter(texts), texts.__getitem__))
    assert (len(texts) - 1, 0) in found
    assert list(near_pairs(lambda: iter([]), None)) == []
    assert list(near_pairs(lambda: iter(["", "!", "?!"]), None)) == []


def test_memory_grows_with_letters_kept_not_with_long_texts(monkeypatch):
    draw = random.Random(0)
    letters = [chr(0xAC00 + place) for place in range(0, 11000, 7)]
    texts = ["".join(draw.choices(letters, k=600)) for _ in range(80)]
    texts += [f"{text[:-9]}끝" for text in texts]
    peaks = []
    monkeypatch.setattr(duplicates, "COUNTED", 1 << 10)  # the counters take 16 MB, whatever the texts
    for held in (1 << 30, 1 << 13):
        monkeypatch.setattr(duplicates, "LETTERS", held)
        tracemalloc.start()
        found = list(near_pairs(lambda: iter(texts), texts.__getitem__))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found == [(place + 80, place) for place in range(80)]
    assert peaks[1] < peaks[0] / 3
