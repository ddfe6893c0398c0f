"""Problem details (RFC 9457) with a stable `code`."""

from pydantic import BaseModel, Field


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="its path, with dots")
    message: str = Field(description="what it must be")


class Problem(BaseModel):
    """`application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(description="the status in words")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="a sentence for people: what is wrong and what to do")
    code: str = Field(description="a stable word for programs")
    errors: list[FieldError] | None = Field(default=None, description="with 422, one for each field")
