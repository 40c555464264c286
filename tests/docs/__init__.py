"""The page of the API, docs/api.md: `python -m tests.docs` writes it, a test keeps it in step."""
