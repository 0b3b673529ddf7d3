from lab.facts import split_wordings

WORDINGS = [f"질문 {number}" for number in range(11)]


def test_every_wording_stands_in_exactly_one_part():
    split = split_wordings("fact", WORDINGS, probe=2, valid=1)
    assert (len(split.train), len(split.valid), len(split.probe)) == (8, 1, 2)
    assert sorted(split.train + split.valid + split.probe) == sorted(WORDINGS)


def test_the_split_does_not_depend_on_the_order():
    split, reversed_ = (split_wordings("fact", words, 2, 1) for words in (WORDINGS, WORDINGS[::-1]))
    assert set(split.probe) == set(reversed_.probe)
    assert split.valid == reversed_.valid


def test_another_owner_holds_back_other_wordings():
    assert len({split_wordings(f"fact {n}", WORDINGS, 2, 1).probe for n in range(20)}) > 10


def test_with_few_wordings_training_comes_first():
    assert split_wordings("fact", WORDINGS[:1], 2, 1).train == ("질문 0",)
    two = split_wordings("fact", WORDINGS[:2], 2, 1)
    assert (len(two.train), len(two.valid), len(two.probe)) == (1, 0, 1)
