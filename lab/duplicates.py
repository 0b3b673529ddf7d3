"""Pairs of texts that nearly agree, exactly and at scale: trigram sets (lab/leaks) with a Jaccard similarity of NEAR.

Two sets of which one has s members agree in NEAR only if they share one of their s - ceil(NEAR * s) + 1 rarest members
(prefix filtering; Source: Bayardo, Ma, Srikant, Scaling Up All Pairs Similarity Search, 2007), and only if the bit maps of
their members differ in few places (bitmap filter; Source: Sandes, Teodoro, Melo, arXiv 1711.07295). Both leave out no pair;
what is left is compared text by text. Letters: N texts, P members of all prefixes, W = 4 words of a bit map.
"""

from itertools import islice

import numpy as np

from lab.korean import comparable
from lab.leaks import NEAR, similarity, trigrams

BLOCK = 4096  # texts whose trigrams are taken at once
LETTERS = 1 << 18  # and letters of them; also trigrams that are kept as sets, for long texts are few to a block
SAMPLED = 8 * BLOCK  # texts by which members are called rare; another order costs time, not pairs
COUNTED = 1 << 20  # counters for that
WORDS = 4
SMALLEST = 1e-9  # of float error in NEAR * size


def near_pairs(texts, read, answers=None, dropped=()):
    """Yield (later, earlier) for each two texts of at least NEAR similarity, by rising `later`, then rising `earlier`.

    `texts()` iterates over the N texts, `read(n)` gives one again. With `answers` (N integers) only texts of the same answer
    are paired. What is put in the set `dropped` while this goes on is paired no more. Texts without letters have no pair.
    """
    sizes, maps, postings = _index(texts, answers)
    places, starts, rows = _shared(postings)
    del postings
    memory, held = {}, 0
    for first, last in _runs(rows[places]):
        row = int(rows[places[first]])
        ranges = zip(starts[first:last].tolist(), places[first:last].tolist(), strict=True)
        earlier = np.unique(np.concatenate([rows[start:place] for start, place in ranges]))
        earlier = earlier[_may_agree(row, earlier, sizes, maps)]
        grams = None
        for other in earlier.tolist():
            if row in dropped:
                break
            if other in dropped:
                continue
            grams = grams or trigrams(read(row))
            if other not in memory:
                if held > LETTERS:
                    memory, held = {}, 0
                memory[other] = trigrams(read(other))
                held += len(memory[other])
            if similarity(grams, memory[other]) >= NEAR:
                yield row, other


def _index(texts, answers):
    """(sizes (N,), bit maps (N, W), prefix members as member << 32 | text (P,), sorted) of the texts."""
    rarity = _rarity(texts)
    sizes, maps, postings, done = [], [], [], 0
    for block in _blocks(texts()):
        owners, members = _members(block)
        counts = np.bincount(owners, minlength=len(block)).astype(np.uint32)
        sizes.append(counts)
        maps.append(_bit_maps(owners, members, len(block)))
        rank = rarity[members & np.uint64(COUNTED - 1)].astype(np.uint64) << np.uint64(40) | members >> np.uint64(
            24
        )
        order = np.lexsort((rank, owners))
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # in its text, rarest first
        length = counts - np.ceil(NEAR * counts - SMALLEST).astype(np.uint32) + 1
        taken = order[place < np.repeat(length, counts)]
        member, owner = members[taken], owners[taken].astype(np.uint64) + np.uint64(done)
        if answers is not None:
            member = _mixed(member ^ np.asarray(answers, np.uint64)[owner])
        postings.append(member >> np.uint64(32) << np.uint64(32) | owner)
        done += len(block)
    postings = np.concatenate(postings) if postings else np.zeros(0, np.uint64)
    postings.sort()
    if not sizes:
        return np.zeros(0, np.uint32), np.zeros((0, WORDS), np.uint64), postings
    return np.concatenate(sizes), np.concatenate(maps), postings


def _rarity(texts):
    """How often each of COUNTED classes of members stands in the first SAMPLED texts, (COUNTED,)."""
    counts = np.zeros(COUNTED, np.int64)
    for block in _blocks(islice(texts(), SAMPLED)):
        counts += np.bincount(_members(block)[1] & np.uint64(COUNTED - 1), minlength=COUNTED)
    return np.minimum(counts, (1 << 24) - 1)


def _blocks(texts):
    """The texts in lists of at most BLOCK, and of LETTERS unless one text alone is longer."""
    block, letters = [], 0
    for text in texts:
        if block and (len(block) == BLOCK or letters + len(text) > LETTERS):
            yield block
            block, letters = [], 0
        block.append(text)
        letters += len(text)
    if block:
        yield block


def _members(block):
    """(owners, members): which text of the block each different trigram is of, and the trigram's 64-bit hash."""
    letters = [comparable(text) for text in block]
    joined = np.frombuffer("".join(letters).encode("utf-32-le"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in letters])
    owner = np.repeat(np.arange(len(block)), lengths)
    padded = np.concatenate([joined, np.zeros(2, np.uint64)])
    owners = np.concatenate([owner, np.full(2, -1)])
    hashes = np.zeros(len(joined), np.uint64)
    for step in range(3):
        inside = owners[step : step + len(joined)] == owner
        hashes = _mixed(hashes + np.where(inside, padded[step : step + len(joined)], 0).astype(np.uint64))
    # a text of one or two letters is its own only member
    last = np.arange(len(joined)) + np.minimum(lengths, 3)[owner] - 1
    whole = owners[last] == owner
    owner, hashes = owner[whole], hashes[whole]
    order = np.lexsort((hashes, owner))
    owner, hashes = owner[order], hashes[order]
    new = np.ones(len(owner), bool)
    new[1:] = (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1])
    return owner[new], hashes[new]


def _mixed(values):
    """64-bit hashes of integers. Source: the finalizer of MurmurHash3 (Appleby)."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ values >> np.uint64(33)


def _bit_maps(owners, members, number):
    maps = np.zeros((number, WORDS), np.uint64)
    bits = members % np.uint64(64 * WORDS)
    np.bitwise_or.at(
        maps, (owners, (bits >> np.uint64(6)).astype(np.intp)), np.uint64(1) << (bits & np.uint64(63))
    )
    return maps


def _shared(postings):
    """Members of several prefixes: (places (S,) in the postings, by text, that are not the first of their member,
    where that member's postings start (S,), the text of each posting (P,))."""
    members, rows = postings >> np.uint64(32), (postings & np.uint64(0xFFFFFFFF)).astype(np.int64)
    new = np.ones(len(rows), bool)
    new[1:] = members[1:] != members[:-1]
    starts = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
    places = np.flatnonzero(~new)
    places = places[np.argsort(rows[places], kind="stable")]
    return places, starts[places], rows


def _runs(values):
    """(start, end) of each run of equal neighbours."""
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    bounds = [0, *edges.tolist(), len(values)] if len(values) else []
    return zip(bounds[:-1], bounds[1:], strict=True)


def _may_agree(row, earlier, sizes, maps):
    """Which of the texts `earlier` can reach NEAR, by size and bit map, (len(earlier),) bool."""
    own, other = int(sizes[row]), sizes[earlier].astype(np.int64)
    differing = np.bitwise_count(maps[earlier] ^ maps[row]).sum(axis=1)
    fits = np.minimum(own, other) >= NEAR * np.maximum(own, other) - SMALLEST
    return fits & (differing <= (own + other) * (1 - NEAR) / (1 + NEAR) + SMALLEST)
