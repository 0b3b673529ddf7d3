"""What went wrong with the Hugging Face hub, in one line with its remedy."""

import errno
from contextlib import contextmanager

from huggingface_hub import constants, errors, get_token

from lab.cli import LabError
from lab.headers import shown

HUB = "https://huggingface.co"
# True of --dry-run, too, which has nothing to go on with.
RUN_AGAIN = "run the same command again, what has come is kept"
LOGIN = "run `hf auth login`"
OTHER_DISK = "free the disk, or set HF_HOME to a folder on another one"


@contextmanager
def explained(repository, revision=None):
    """Turn the errors of huggingface_hub, of its HTTP library and of the disk into LabErrors."""
    try:
        yield
    except (errors.HTTPError, errors.EntryNotFoundError, errors.HFValidationError, OSError) as error:
        raise LabError(f"{repository}: {_explanation(error, repository, revision)}") from error


def _explanation(error, repository, revision):
    page = f"{HUB}/{repository}"
    if isinstance(error, errors.GatedRepoError):
        if get_token() is None:
            return f"gated, and there is no token; accept its licence at {page}, then {LOGIN}"
        return (
            f"gated, and the token's account has not accepted its licence; accept it at {page}, then {RUN_AGAIN}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such folder, and no such model on the hub; check the name, or {LOGIN} if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no revision {shown(revision)} of it on the hub; {page}/commits/main lists them"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"a file of it is not on the hub ({_reason(error)}); see {page}/tree/main"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        what = "no such folder, not in the cache, and the hub cannot be reached"
        return f"{what}; connect (and unset HF_HUB_OFFLINE), then {RUN_AGAIN}"
    if isinstance(error, errors.HfHubHTTPError):
        return _status(error, page)
    if isinstance(error, errors.HTTPError | ConnectionError):
        what = "the network" if constants.ENDPOINT == HUB else "the network and HF_ENDPOINT"
        return f"the connection to {constants.ENDPOINT} failed ({_reason(error)}); check {what}, then {RUN_AGAIN}"
    if isinstance(error, OSError) and error.errno is not None:
        remedy = OTHER_DISK if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "check HF_HOME"
        return (
            f"{error.filename or constants.HF_HUB_CACHE}: cannot be read or written ({error.strerror}); {remedy}"
        )
    if isinstance(error, OSError):  # huggingface_hub's own, as of a file of the wrong size
        return f"the download broke off ({_reason(error)}); {RUN_AGAIN}"
    return f"no name of a model on the hub ({_reason(error)}); check it"  # HFValidationError


def _status(error, page):
    status = error.response.status_code
    if status == 401:
        return f"the hub does not know this token (HF_TOKEN, or `hf auth login`'s); {LOGIN}"
    if status == 403:
        return (
            f"the hub does not let this token in (403); look at {page}, then {LOGIN} with a token that may read it"
        )
    if status not in (408, 425, 429) and status < 500:  # it will answer so the next time, too
        return f"the hub answers {status}; check the name at {page}, and HF_ENDPOINT where it is set"
    what = "the hub gets too many requests (429)" if status == 429 else f"the hub answers {status}"
    return f"{what}; wait some minutes, then {RUN_AGAIN}"


def brief(error):
    """What an error that may pass says, in some words that follow the hub's address."""
    if isinstance(error, errors.HfHubHTTPError):
        return f"answers {error.response.status_code}"
    return f"does not answer ({_reason(error)})"


def _reason(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return shown(lines[0].strip() if lines else type(error).__name__)
