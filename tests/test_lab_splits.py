"""lab/splits: parts by hash of the group, stable, of about the right size, none empty where it can be helped."""

import random

import pytest

from lab.splits import Links, Split, group_hash


def hashes(number, seed=0):
    return [group_hash(seed, f"group {place}") for place in range(number)]


def test_shares_come_out_and_rows_that_come_later_move_none():
    groups = hashes(5000)
    before, after = Split(groups, 0.1, 0.2), Split(groups + hashes(3000, 1), 0.1, 0.2)
    parts = [before.part(group) for group in groups]
    assert parts == [after.part(group) for group in groups]
    shares = [parts.count(part) / len(parts) for part in range(3)]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    assert parts != [before.part(group) for group in hashes(5000, 2)]


@pytest.mark.parametrize("number", range(1, 12))
def test_no_part_is_empty_where_a_group_can_be_spared(number):
    for seed in range(60):
        groups = hashes(number, seed)
        split = Split(groups, 0.1, 0.1)
        counts = [sum(split.part(group) == part for group in groups) for part in range(3)]
        assert [count > 0 for count in counts] == [True, number > 1, number > 2], (seed, counts)


def test_a_share_of_0_is_an_empty_part():
    groups = hashes(300)
    split = Split(groups, 0, 0)
    assert {split.part(group) for group in groups} == {0}
    split = Split(groups, 0.5, 0)
    assert {split.part(group) for group in groups} == {0, 1}


def test_linked_groups_have_one_hash_and_it_is_that_of_the_first():
    links, draw = Links(), random.Random(0)
    pairs = [sorted(draw.sample(range(200), 2)) for _ in range(150)]
    for earlier, later in pairs:
        links.join(later, earlier)
    component = {place: {place} for place in range(200)}
    for first, second in pairs:
        both = component[first] | component[second]
        for place in both:
            component[place] = both
    for place in range(200):
        assert {links.first(other) for other in component[place]} == {links.first(place)}
        assert links.first(place) in component[place]
    assert (
        len({links.first(place) for place in range(200)}) == len({min(both) for both in component.values()}) > 50
    )
    assert not Links() and links
