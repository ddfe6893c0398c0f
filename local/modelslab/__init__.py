"""A simulator of ModelsLab's image API: the provider of a machine without an account, and of every test.

What it is: the v7 text-to-image and image-to-image calls, fetch by id, pictures drawn from the prompt, webhooks, the
limit on requests in flight, and a script that decides how each call goes. `README.md` says what of it is evidence and
what is guess.

Invariants:
- It stands alone: no import of any process, of storage or of messaging.
- The account's key is never kept, logged or shown: only a digest of it, to count what is in flight per account.
- A job is charged once, when it is made; `GET /simulator/calls` says so for each call.
- A job's fate is drawn when it is submitted and depends on nothing but the script, its seed and the order of calls.
- All periods are read from one `Clock`, so that a test moves time by hand.
"""
