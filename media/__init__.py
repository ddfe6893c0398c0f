"""Where image bytes lie: the only room that knows it (obstore: a folder, S3, GCS, Azure).

Invariants: a key names its content (its SHA-256), so bytes under a key never change and a URL of them is immutable;
bytes appear under their key whole or not at all; nothing here blocks the event loop.
"""
