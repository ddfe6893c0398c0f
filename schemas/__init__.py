"""The contract: topics, events, bodies, statuses and error classes, as pydantic models and nothing else.

Processes meet only here. Within a topic version a change is additive; `tests/golden/` holds one JSON per event type
that must parse for ever.
"""
