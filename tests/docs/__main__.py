"""Writes docs/api.md."""

from __future__ import annotations

from tests.docs.api import PAGE, page

if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
