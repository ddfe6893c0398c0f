"""An issuer of tokens whose keys are published: makes keys, signs with them, and answers for their set."""

import asyncio
import json
import time
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

USER = "9b2f4c1e-6d3a-4b58-8e0f-2a7c5d9e1f30"
URL = "https://issuer.test/jwks.json"
Reply = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""


class SigningKey:
    """A pair. `jwk` is its public half as it is published."""

    def __init__(self, algorithm: str, kid: str | None, *, bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
        match algorithm:
            case "RS256":
                self.private = rsa.generate_private_key(65537, bits)
            case "ES256":
                self.private = ec.generate_private_key(ec.SECP256R1())
            case _:
                self.private = ed25519.Ed25519PrivateKey.generate()
        public = self.private.public_key()
        told = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)  # type: ignore[call-arg]
        self.jwk: dict[str, Any] = {**told, **({"kid": kid} if kid is not None else {})}  # type: ignore[dict-item]

    def token(self, sub: str = USER, **claims: Any) -> str:
        content = {"sub": sub, "exp": int(time.time()) + 600, **claims}
        headers = {"kid": self.kid} if self.kid is not None else None
        return jwt.encode(content, self.private, algorithm=self.algorithm, headers=headers)


class Issuer(httpx.AsyncBaseTransport):
    """What stands at the address: `keys`, unless `answer` is set. Counts how often it was asked."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.answer: Reply | Exception | None = None
        #: while it is clear, nobody is answered
        self.open = asyncio.Event()
        self.open.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await self.open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        status, headers, body = self.answer or (200, {}, json.dumps(self.document).encode())
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    @property
    def document(self) -> dict[str, Any]:
        return {"keys": [key.jwk for key in self.keys]}

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(10):
            while True:
                if self.asked >= times:
                    return
                await asyncio.sleep(0.001)
