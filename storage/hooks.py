"""Ids that the provider's webhook names: noted unconfirmed, beside the attempt that they are said to be of."""

from storage.database import Database

# an attempt that was never sent is not known to the provider, whoever says so
_NOTE = """
UPDATE generation_attempts SET webhook_request_id = $2
WHERE webhook_token = $1 AND sent_at IS NOT NULL AND (outcome IS NULL OR outcome = 'uncertain')
    AND provider_request_id IS NULL AND webhook_request_id IS NULL AND output_urls IS NULL
RETURNING id
"""


async def note(database: Database, token: str, request_id: str) -> bool:
    """Note the id on the open attempt of this token, unless it has one; False: there is no such attempt.

    Nothing is submitted beside it from here on (PIPELINE S1); a consumer finds out whether it is true.
    """
    return bool(await database.fetch(_NOTE, token, request_id))
