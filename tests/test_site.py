"""The site of `docs/`: it builds without a warning, has every page in its navigation, and fetches nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b[^>]*\bhref=\"?(?:https?:)?//"
)
ONLY_NAMED = re.compile(r"<link\b[^>]*\brel=\"?(?:canonical|prev|next)\b")


def pages(navigation: Any) -> Iterator[str]:
    if isinstance(navigation, str):
        yield navigation
    else:
        for entry in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from pages(entry)


def test_every_page_is_in_the_navigation_once() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    listed = sorted(pages(settings["nav"]))
    there = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert listed == there, "give each page of docs/ its place in mkdocs.yml"


def build(configuration: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", configuration, "--site-dir", target]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )


def test_the_site_builds_strictly_and_fetches_nothing_from_other_servers(tmp_path: Path) -> None:
    done = build(ROOT / "mkdocs.yml", tmp_path)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    built = list(tmp_path.rglob("*.html"))
    assert len(built) > len(list(DOCS.rglob("*.md")))  # and 404.html
    for page in built:
        text = ONLY_NAMED.sub("", page.read_text("utf-8"))
        assert FETCHED.findall(text) == [], page.name
        assert 'class="mermaid"' not in text, "the theme would fetch mermaid from another server"
    for sheet in tmp_path.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text("utf-8")) == [], sheet.name


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    """With the settings of the real site, on a site of one page."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("# Page\n\n[x](nowhere.md)\n[y](page.md#elsewhere)\n", "utf-8")
    configuration = tmp_path / "mkdocs.yml"
    configuration.write_text(yaml.safe_dump({**settings, "nav": ["page.md"], "extra_css": []}), "utf-8")
    done = build(configuration, tmp_path / "site")
    assert done.returncode == 1
    assert ("nowhere.md" in done.stderr, "#elsewhere" in done.stderr) == (True, True), done.stderr
