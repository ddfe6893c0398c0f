"""What an error of the picture store means, in a sentence that says what to do.

obstore's own texts are not passed on: they show addresses, whose query is a signature where the store is Azure with
SAS, and pages of its state. Of them only words without secrets are kept: a status, an error's code, an errno.
"""

import errno
import os
import re

from obstore.exceptions import NotFoundError, PermissionDeniedError, UnauthenticatedError

# as Rust's std shows an error of the system, for people and for debugging
_OS_ERROR = re.compile(r"\(os error (\d{1,5})\)|Os \{\s*code: (\d{1,5})")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")

_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_FULL = re.compile(r"StorageFull|QuotaExceeded|InsufficientStorage|InsufficientCapacity", re.IGNORECASE)
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

MISSING = "the picture store's bucket or folder does not exist: create it, or correct SCENEWIRE_MEDIA_URL"
SLOW = "the picture store did not answer in time"


def is_missing_store(error: BaseException) -> bool:
    """Whether it is the bucket that is not there, and not only a picture."""
    return _NO_BUCKET.search(str(error)) is not None


def sentence(error: BaseException) -> str:
    """For people and logs."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _OS_ERROR.search(text)):
        number = int(found[1] or found[2])
    status = found[1] if (found := _STATUS.search(text)) else None
    code = f" ({found[1]})" if (found := _CODE.search(text)) else ""
    if is_missing_store(error) or isinstance(error, NotFoundError | FileNotFoundError):
        return MISSING
    if number in _FULL_ERRNOS or status == "507" or _FULL.search(text):
        return f"the picture store is full{code}: make room, or raise its quota"
    if (
        number in _FORBIDDEN_ERRNOS
        or status in ("401", "403")
        or isinstance(error, PermissionDeniedError | UnauthenticatedError)
    ):
        return (
            f"the picture store refuses us{code}: check its credentials, and that they allow to read, write, delete "
            "and list"
        )
    if status is not None:
        return f"the picture store answered {status}{code}"
    if number is not None:
        return f"the picture store cannot be used: {os.strerror(number)}"
    if "dns error" in text:
        return "the picture store's host has no address: check its endpoint's name, and DNS"
    if "certificate" in text:
        return "the picture store's certificate is not trusted here"
    return "the picture store does not answer"
