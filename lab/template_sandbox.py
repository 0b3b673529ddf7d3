"""Chat templates, rendered as transformers does, without loading it: half a second, and no tokenizer is wanted.

A template is a program that came with the checkpoint. It runs in jinja2's sandbox, on plain data alone.
"""

import json
import resource
import signal
import threading
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Scope
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

SECONDS = 2.0  # of computing; a template takes milliseconds
MEMORY = 512 << 20  # bytes more than there are; a template takes kilobytes


class TooSlow(BaseException):
    """A template that goes on and on. No Exception, so that nobody takes it for one that refuses a dialogue."""


@contextmanager
def limited():
    """Raise TooSlow inside once SECONDS are computed away, MemoryError beyond MEMORY (on Linux): a sandbox bounds neither."""
    if threading.current_thread() is not threading.main_thread():  # where no signal can be taken
        yield
        return

    def stop(*_):
        raise TooSlow(f"it computes for more than {SECONDS:g} s")

    with _limited_memory():  # outside: its own end is not cut off
        before = signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)


@contextmanager
def _limited_memory():
    """Python's `'a' * 10**10` is one step, which no timer breaks off."""
    status = Path("/proc/self/statm")
    if not status.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(status.read_text(encoding="ascii").split()[0])
    bound = pages * resource.getpagesize() + MEMORY
    bounds = [limit for limit in (bound, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def compiled(template, names):
    """A function render(messages, **more) -> text; `names` are variables that the template may write. Raises TemplateError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        dict=_dict,
        namespace=_Namespace,
        raise_exception=_refuse,
        strftime_now=lambda form: datetime.now().strftime(form),
    )
    ready = environment.from_string(template)

    def render(messages, **more):
        return ready.render(
            **{"tools": None, "documents": None, "add_generation_prompt": False, **names, **more},
            messages=messages,
        )

    return render


class _Generation(Extension):
    """`{% generation %}`, by which transformers finds what an assistant said: here it shows its content."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return Scope(body).set_lineno(line)


class _Namespace(Namespace):
    """jinja2's, without attributes that lead into Python."""

    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        for name in dict(*args, **kwargs):
            _Namespace._check(name)
        Namespace.__init__(self, *args, **kwargs)

    def __setitem__(self, name, value):
        _Namespace._check(name)
        Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if str(name).startswith("_"):
            raise SecurityError(f"a template's namespace takes no {name}")


def _dict(*args, **kwargs):
    return dict(*args, **kwargs)


def _tojson(value, ensure_ascii=False, **layout):
    return json.dumps(value, ensure_ascii=ensure_ascii, **layout)


def _refuse(message):
    raise TemplateError(message)
