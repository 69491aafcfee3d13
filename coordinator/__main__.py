"""``coordinator`` and ``python -m coordinator``."""

from __future__ import annotations

from coordinator.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
