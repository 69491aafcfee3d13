"""``python -m coordinator.bridge``."""

from coordinator.bridge.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
