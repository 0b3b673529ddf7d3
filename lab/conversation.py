"""A conversation that fits the model's context: whole turns are left out at its beginning, what was read is kept."""

from lab import sampling as sampling_flags
from lab.chat import prompt_tokens, refuse_marks
from lab.cli import LabError
from lab.records import nfc
from lab.streaming import Answer, PromptCache


class Asker:
    """One model with one way of drawing: makes answers of conversations, each with a number of its own."""

    def __init__(self, model, tokenizer, sampling, max_tokens, context):
        """`max_tokens` is the longest answer, `context` the most tokens of prompt and answer together."""
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.max_tokens, self.context = max_tokens, context

    def prompt(self, messages, where):
        """The tokens of a conversation that waits for an answer.

        Raises LabError at `where` for one that the template refuses, that holds a turn's marks, or leaves no room.
        """
        refuse_marks(self.tokenizer, messages, where)
        tokens = prompt_tokens(self.tokenizer, messages, where)
        if len(tokens) >= self.context:
            raise TooLong(
                f"{where}: {len(tokens)} tokens with the template, the context is {self.context}; make it shorter"
            )
        return tokens

    def limit(self, prompt):
        """The most tokens that an answer to `prompt` may have."""
        return min(self.max_tokens, self.context - len(prompt))

    def sampler(self, place):
        """What draws answer number `place`."""
        return sampling_flags.sampler(self.sampling, place, self.model.args.vocab_size)

    def processors(self, before=()):
        """The logits processors of an answer; `before` as in lab.sampling."""
        return sampling_flags.processors(self.sampling, before)

    def answer(self, prompt, place=0, cache=None, stop=lambda: False):
        """Answer number `place`, to be iterated for its pieces."""
        drawing = {"sampler": self.sampler(place), "processors": self.processors}
        return Answer(self.model, self.tokenizer, prompt, self.limit(prompt), cache, stop=stop, **drawing)

    def cut(self, answer):
        """What to say of an answer that the model did not end, or "" where it did."""
        if answer.ended or len(answer.tokens) < answer.limit:
            return ""
        full = f"; the context of {self.context} is full" if answer.limit < self.max_tokens else ""
        return f"[cut at {answer.limit} tokens{full}]"


class TooLong(LabError):
    """A conversation that the context does not hold."""


class Conversation:
    """The turns so far, and the cache of what the model has read of them."""

    def __init__(self, asker, system=None):
        """Raises LabError where the model's template refuses a `system` turn."""
        self.asker, self.cache, self.asked = asker, PromptCache(asker.model), 0
        self.system = [{"role": "system", "content": nfc(system)}] if system else []
        self.turns, self.last, self.left_out = [], None, 0
        if system:
            check_system(asker.tokenizer, self.system)

    def ask(self, text, stop=lambda: False):
        """The pieces of the answer to `text`, which joins the turns; an answer that is left off stays as far as it came.

        `last` is then the Answer, `left_out` how many of the oldest turns it had to do without. Raises LabError, and
        keeps the turns as they were, for a text that cannot be asked.
        """
        question = {"role": "user", "content": nfc(text)}
        prompt = self._fitting([*self.turns, question])
        self.last = self.asker.answer(prompt, self.asked, self.cache, stop)
        self.asked += 1
        self.turns.append(question)
        try:
            yield from self.last
        finally:
            if self.last.text.strip():
                self.turns.append({"role": "assistant", "content": self.last.text})
            else:  # templates refuse two questions in a row
                self.turns.pop()

    def _fitting(self, turns):
        """The prompt of as many of the last turns as leave the answer its room, or half the context; always the question."""
        asker, oldest = self.asker, None
        wanted = min(asker.max_tokens, asker.context // 2)
        for start in range(0, len(turns), 2):
            try:
                prompt = asker.prompt(self.system + turns[start:], "this question")
            except TooLong:
                if start + 1 == len(turns):
                    raise
                continue
            self.left_out, oldest = start, prompt
            if asker.limit(prompt) >= wanted:
                break
        return oldest

    def undo(self):
        """Take back the last question and its answer; returns the question, or None where there is none."""
        if not self.turns:
            return None
        *self.turns, question, _ = self.turns
        return question["content"]

    def reset(self):
        """Forget every turn, but not the system's."""
        self.turns, self.left_out = [], 0

    def messages(self):
        """Every turn, the system's first."""
        return [*self.system, *self.turns]


def check_system(tokenizer, system):
    """Raise LabError where the model's chat template refuses a system turn, or drops it."""
    turns = [*system, {"role": "user", "content": "?"}]
    remedy = "write it into the question"
    refuse_marks(tokenizer, turns, "--system")
    try:
        tokens = prompt_tokens(tokenizer, turns)
    except LabError as error:
        raise LabError(f"--system: the model's chat template knows no system turn; {remedy}") from error
    if tokens == prompt_tokens(tokenizer, turns[1:]):
        raise LabError(f"--system: the model's chat template drops a system turn; {remedy}")
