"""An embedding in a query: as people and as programs write it."""

from __future__ import annotations

import pytest

from coordinator.errors import InvalidArgument
from coordinator.model.embedding import pack, unpack


def test_what_is_packed_is_read_again_and_is_short() -> None:
    numbers = [0.5, -0.25, 1e30, 0.0, 3.0]
    assert unpack(pack(numbers)) == pytest.approx(numbers)
    assert len(pack([0.123456789] * 4000)) < 22_000
    assert unpack("0.5,-0.25,1e30") == [0.5, -0.25, 1e30]
    assert unpack("7") == [7]


@pytest.mark.parametrize("text", ["", "x", "1,", "f32:AAA=", "f32:\u00e9", "f32:AAAAAAAA!", "[1,2]"])
def test_what_is_not_a_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        unpack(text)
    assert refused.value.code == "ZC103"
    assert refused.value.hint
