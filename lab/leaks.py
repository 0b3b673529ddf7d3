"""The leak guard: what stands in two splits at once, exactly or nearly.

Two wordings are an exact duplicate when their letters and digits agree (case, spaces and punctuation aside), and a
near duplicate when the Jaccard similarity of their character trigrams reaches NEAR. Of two near-equal questions only
those that share an answer are a leak: "프랑스의 수도는?" does not give away "벨기에의 수도는?".
"""

from lab.korean import comparable

NEAR = 0.8


def trigrams(text):
    """The set of character trigrams of `text` in its comparable form; a shorter text is its own only member."""
    letters = comparable(text)
    return {letters[i : i + 3] for i in range(len(letters) - 2)} or {letters}


def similarity(first, second):
    """Jaccard similarity, 0 to 1, of two trigram sets."""
    return len(first & second) / len(first | second)
