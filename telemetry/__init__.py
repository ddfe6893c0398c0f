"""Logs (structlog), metrics (prometheus-client) and traces (OpenTelemetry).

Invariants: one event is one line of JSON unless a person watches; a secret never gets past `redaction`, whoever logs
it; the names of metrics are one closed list; nothing here makes a network call unless OTEL_EXPORTER_OTLP_ENDPOINT is
set. Any room but `schemas` may import this one; it imports none of ours.
"""
