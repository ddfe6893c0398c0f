"""Addresses of pictures: a capability for one record's one content, without expiry.

The signature is HMAC-SHA256 over record, content hash and extension, cut to 144 bits. Whoever has the address may see
the picture, so addresses are kept out of logs. Of several secrets the first signs and all verify: that is rotation.

A picture's thumbnail has the same signature, at `/images/{record_id}/thumb/{sig}.webp`: who may see the one may see the
other, and either address can be made from the other (the database does: storage.fragments).
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from uuid import UUID

_SIGNATURE_BYTES = 18
"""144 bits: above the 128 that are wanted, and 24 characters of base64 without padding."""


def sign(record_id: UUID, sha256: str, extension: str, secrets: Sequence[str]) -> str:
    """The path `/images/{record_id}/file/{sig}.{ext}`, to be put behind the push address."""
    return f"/images/{record_id}/file/{_signature(record_id, sha256, extension, secrets[0])}.{extension}"


def verify(record_id: UUID, sha256: str, extension: str, signature: str, secrets: Sequence[str]) -> bool:
    """Whether one of `secrets` made the signature; compares in constant time."""
    given = signature.encode("utf-8", "surrogatepass")
    matches = [
        hmac.compare_digest(_signature(record_id, sha256, extension, secret).encode(), given) for secret in secrets
    ]
    return any(matches)


def _signature(record_id: UUID, sha256: str, extension: str, secret: str) -> str:
    # the first word keeps these apart from whatever else the same secret signs
    message = f"picture\n{record_id}\n{sha256}\n{extension}".encode()
    return urlsafe_b64encode(hmac.digest(secret.encode(), message, "sha256")[:_SIGNATURE_BYTES]).decode()
