"""The pages whose many commands `make test` leaves to `make operations`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end import test_pages
from tests.end_to_end.test_pages import LONG, Place, check

place = test_pages.place  # the fixture


@pytest.mark.parametrize("page", LONG)
async def test_the_blocks_of_a_long_page_run(page: str, place: Place, tmp_path: Path) -> None:
    await check(page, place, tmp_path)
