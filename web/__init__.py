"""What the HTTP processes share: who calls, what may be sent, how errors, health and documentation look.

Invariants: every error that leaves is `application/problem+json` with a stable code and, for an allowed origin, CORS
headers; input never causes a 500; a body is refused before it is read whole; no token, secret or signature is echoed
or logged. Nothing here knows SQL, Kafka or any one process's routes.
"""
