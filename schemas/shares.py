"""Share tokens, as they are handed out."""

from datetime import datetime

from pydantic import BaseModel, Field


class Share(BaseModel):
    """A token for others: it shows one chapter as its owner sees it, and changes nothing."""

    token: str = Field(repr=False, description="a bearer token: in a header or a frame, never in an address")
    expires_at: datetime = Field(description="from when on it is refused, give or take the leeway of clocks")
