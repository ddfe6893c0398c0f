"""What a token costs: checked for the first time, known already, and by the library alone.

    .venv/bin/python bench/tokens.py                    # 5 rounds of 3,000 tokens of each kind, medians
    .venv/bin/python bench/tokens.py --rounds 1 --tokens 500

CPU of this process alone; no network: the published keys are handed in.
"""

import argparse
import asyncio
import logging
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import jwt
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.issuing import URL, Issuer, SigningKey
from web.auth import Verifier
from web.settings import WebSettings

SECRET = "0123456789abcdef0123456789abcdef"


def _claims() -> dict[str, object]:
    return {
        "sub": str(uuid.uuid4()),
        "aud": "authenticated",
        "exp": int(time.time()) + 3600,
        "iat": int(time.time()),
        "app_metadata": {"user_tier": "premium"},
    }


def _cost(check: Callable[[str], object], tokens: Iterable[str]) -> float:
    """Microseconds of CPU a token."""
    tokens = list(tokens)
    began = time.process_time()
    for token in tokens:
        check(token)
    return (time.process_time() - began) / len(tokens) * 1e6


async def main(rounds: int, count: int) -> None:
    keys = {algorithm: SigningKey(algorithm, algorithm) for algorithm in ("RS256", "ES256", "EdDSA")}
    settings = WebSettings.model_validate({"jwt_secret": SECRET, "jwks_url": URL})
    print(f"{'':8}{'first time':>12}{'known':>8}{'library':>9}   us of CPU a token, medians of {rounds}")
    for algorithm in ("HS256", *keys):
        key = keys.get(algorithm)
        figures: list[tuple[float, float, float]] = []
        for _ in range(rounds):
            verifier = Verifier(settings, jwks=Issuer(*keys.values()), remembered=count)
            running = asyncio.create_task(verifier.run())
            if key is None:
                tokens = [jwt.encode(_claims(), SECRET, algorithm="HS256") for _ in range(count)]
                public: str | jwt.PyJWK = SECRET
            else:
                tokens = [key.token(**_claims()) for _ in range(count)]
                public = jwt.PyJWK(key.jwk, algorithm)
                await verifier.verified(key.token())

            def library(token: str, public: str | jwt.PyJWK = public, algorithm: str = algorithm) -> object:
                return jwt.decode(token, public, algorithms=[algorithm], audience="authenticated")

            figures.append((_cost(verifier.verify, tokens), _cost(verifier.verify, tokens), _cost(library, tokens)))
            running.cancel()
            await asyncio.wait({running})
        first, known, alone = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{algorithm:8}{first:12.1f}{known:8.1f}{alone:9.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=3_000)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(main(given.rounds, given.tokens))
