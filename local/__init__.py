"""Everything on one machine, with real parts: Kafka, Postgres, the provider's simulator and all of our processes.

Invariants: nothing here is imported by a room that runs in production (tests may). Every server is a direct child in a
session of its own, keeps its data and its port over a restart, and does not outlive the process that started it.
Importing this room starts nothing, downloads nothing and opens nothing.
"""
