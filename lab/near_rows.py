"""Near duplicates of a table: which rows they drop, and which groups they put together."""

import json
from array import array

from lab.duplicates import near_pairs
from lab.korean import comparable
from lab.splits import Links


def drop_near(corpus, columns, keep=False):
    """Drop near duplicates (or `keep` them) and put near texts that stay into one group; returns how many pairs did."""
    links, linked, alike = Links(), 0, None
    # Near questions with other answers say nothing of each other (lab/leaks); near texts of another class do.
    if columns.answer and not columns.classes:
        alike, linked = link_equal(corpus, links, answers=not columns.group)
    for later, earlier in near_pairs(corpus.texts, corpus.text, alike, corpus.out):
        if not keep and corpus.answers[later] == corpus.answers[earlier]:
            corpus.out.add(later)
            corpus.drop(corpus.numbers[later], "near_duplicate", corpus.text(later), earlier)
        else:
            links.join(corpus.groups[later], corpus.groups[earlier])
            linked += 1
    if links:
        corpus.groups = array("Q", map(links.first, corpus.groups))
    return linked


def link_equal(corpus, links, answers):
    """Link groups of rows whose questions have the same letters and digits (lab/leaks) or, with `answers`, whose answers.

    Returns (the hash of each row's answer by these (N,), how many rows were linked by their question alone).
    """
    said, asked, groups, linked = array("Q"), {}, {}, 0
    for row, (line, group) in enumerate(zip(corpus.lines(), corpus.groups, strict=True)):
        question, answer = (turn["content"] for turn in json.loads(line)["messages"])
        told = _hash(comparable(answer) or answer)
        said.append(told)
        if answers and (first := groups.setdefault(told, group)) != group:
            links.join(group, first)
        letters = comparable(question)
        if letters and (first := asked.setdefault(_hash(letters), row)) != row:
            linked += said[first] != told
            links.join(group, corpus.groups[first])
    return said, linked


def _hash(text):
    """64 bits of `text`, for this process alone."""
    return hash(text) & (1 << 64) - 1
