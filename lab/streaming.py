"""One answer, token by token: whole characters as they come, and a cache that keeps what was read for the next turn."""

import re
import time
from contextlib import closing

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)

from mlx_lm.generate import generate_step, generation_stream, wired_limit
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from lab import models
from lab.answers import common_length

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a token of SentencePiece's byte fallback
BROKEN = "\ufffd"  # what stands for bytes that are no character, or not yet


class Pieces:
    """The text of tokens that come one by one: no half characters, no special tokens, together the batch decode.

    mlx_lm's detokenizers show special tokens, drop a blank at the beginning, and write bytes that are no character
    otherwise than tokenizer.decode: 9 to 44 % of random token sequences differed.
    """

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self._special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._tokens, self._start, self._shown = (
            [],
            0,
            0,
        )  # decoded from `_start`, which stands before what was shown

    def add(self, token):
        """The text that `token` completes; often "", since a character may take several tokens."""
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None or token in self._special:  # None: a number that only pads the model's vocabulary
            return ""
        self._tokens.append(token)
        if BYTE.fullmatch(name):
            return ""  # one wrong byte in a run of them changes how the whole run is written
        return self._rest(whole=True)

    def finish(self):
        """What is left when no token follows."""
        return self._rest(whole=False)

    def _rest(self, whole):
        decode = self._tokenizer.decode
        now = decode(self._tokens[self._start :], skip_special_tokens=True)
        if whole and now.endswith(BROKEN):
            return ""
        piece = now[len(decode(self._tokens[self._start : self._shown], skip_special_tokens=True)) :]
        if piece:
            self._start, self._shown = self._shown, len(self._tokens)
        return piece


class PromptCache:
    """Keys and values of the tokens that a model has read, kept for the next prompt that begins in the same way."""

    def __init__(self, model):
        self._model = model
        self.forget()

    def forget(self):
        """Begin anew."""
        self._tokens, self.layers = [], make_prompt_cache(self._model)

    def reuse(self, prompt):
        """Keep the beginning that is also `prompt`'s; returns its length, at most one less than `prompt` has."""
        self.read(prompt[: min(common_length(self._tokens, prompt), len(prompt) - 1)])
        return len(self._tokens)

    def read(self, tokens):
        """Say what was read: `tokens`, of which the cache may lack some, and behind which it may hold more.

        A cache that cannot go back (of a sliding window that is full, say) is emptied.
        """
        if not can_trim_prompt_cache(self.layers):
            return self.forget()
        trim_prompt_cache(self.layers, max(0, self.layers[0].size() - len(tokens)))
        self._tokens = list(tokens[: self.layers[0].size()])


class _Stopped(Exception):
    pass


class Answer:
    """An answer in the making: iterate for its pieces of text; what it is can be read afterwards.

    `text`; `ended`: the model ended it; `tokens` without the end token; `reused`: tokens of the prompt that the cache
    held; `first_seconds` and `seconds`: to the first token, and to the last.
    """

    def __init__(
        self, model, tokenizer, prompt, limit, cache=None, sampler=None, processors=None, stop=lambda: False
    ):
        """`prompt` are token ids, `limit` the most tokens, `processors` a function of the tokens that the cache holds.

        `stop` is asked between tokens whether to leave off; with it alone a cache that is used again stays whole.
        """
        self._model, self._tokenizer, self.prompt, self.limit = model, tokenizer, list(prompt), limit
        self._cache, self._sampler = cache or PromptCache(model), sampler
        self._processors, self._stop = processors or (lambda before: []), stop
        self.text, self.tokens, self.ended = "", [], False
        self.reused, self.first_seconds, self.seconds = 0, None, 0.0

    def __iter__(self):
        pieces = Pieces(self._tokenizer)
        for token in self._said():
            if piece := pieces.add(token):
                self.text += piece
                yield piece
        if piece := pieces.finish():
            self.text += piece
            yield piece

    def _said(self):
        started = time.perf_counter()
        try:
            with (
                models.suited_threads(self._model),
                wired_limit(self._model, [generation_stream]),
                closing(self._steps()) as steps,
            ):
                for token, _ in steps:
                    self.seconds = time.perf_counter() - started
                    self.first_seconds = self.first_seconds or self.seconds
                    if token in self._tokenizer.eos_token_ids:
                        self.ended = True
                        break
                    self.tokens.append(token)
                    yield token
                    self._check()
        except _Stopped:
            pass
        except BaseException:  # Ctrl-C between two layers, say: then one holds a token more than the other
            self._cache.forget()
            raise
        self._cache.read(self.prompt + self.tokens)

    def _steps(self):
        self.reused = self._cache.reuse(self.prompt)
        return generate_step(
            mx.array(self.prompt[self.reused :]),
            self._model,
            max_tokens=self.limit,
            sampler=self._sampler,
            logits_processors=self._processors(self.prompt[: self.reused]),
            prompt_cache=self._cache.layers,
            prompt_progress_callback=self._check,
        )

    def _check(self, *_):
        if self._stop():
            raise _Stopped

    def figures(self):
        """One line for people: tokens, seconds, tokens a second."""
        new, rest = len(self.prompt) - self.reused, max(self.seconds - (self.first_seconds or 0), 1e-9)
        speed = f", then {(len(self.tokens) - 1) / rest:.0f} tokens/s" if len(self.tokens) > 1 else ""
        return (
            f"prompt {len(self.prompt)} tokens ({new} read anew), first token after {self.first_seconds or 0:.3f} s"
            f"{speed}, answer {len(self.tokens)} tokens"
        )
