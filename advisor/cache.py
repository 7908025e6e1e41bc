"""Where things are kept that can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path

from advisor.errors import UserError


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/advisor``, else ``~/.cache/advisor``. UserError when there is no home either."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "advisor"
    except RuntimeError as error:
        raise UserError("there is no home directory for the cache; name a place with XDG_CACHE_HOME") from error
