"""A service that is reloaded over and over under load: see `python -m tests.reload --help`."""
