"""The Dockerfile, read."""

from __future__ import annotations

import re

from tests.deploy.rendered import ROOT


def instructions(name: str) -> list[str]:
    """Return the arguments of each instruction of that name."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)
