"""Every test here is checked, as the framework's are, for what it leaves behind."""

from __future__ import annotations

from tests.tao.conftest import ends_and_leaves_nothing, real_stderr

__all__ = ["ends_and_leaves_nothing", "real_stderr"]
