"""The verification in docs/webhooks.md accepts what is sent, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.model.network import Networks
from coordinator.webhooks.sender import Sender
from tests.webhooks.receiver import Received, Receiver
from tests.webhooks.test_sender import SECRETS, work

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")


@pytest.fixture(scope="module")
def verify() -> Callable[..., None]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102
    return names["verify"]  # type: ignore[no-any-return]


async def request() -> Received:
    async with Receiver() as receiver, Sender(Networks("127.0.0.0/8")).connected() as line:
        assert (await line.send(work(receiver.url, '{"é": "\\u0000"}'))).error is None
        return receiver.received[0]


async def test_what_is_sent_is_verified_with_either_secret(verify: Callable[..., None]) -> None:
    sent = await request()
    for secrets in (SECRETS, SECRETS[:1], SECRETS[1:]):
        verify(secrets, sent.headers, sent.body)


async def test_what_was_changed_is_not(verify: Callable[..., None]) -> None:
    sent = await request()
    other = "whsec_" + "A" * 43 + "="
    changes: list[tuple[list[str], dict[str, str], bytes]] = [
        ([other], sent.headers, sent.body),
        (SECRETS, sent.headers, sent.body + b" "),
        (SECRETS, sent.headers | {"webhook-id": "msg_2"}, sent.body),
        (SECRETS, sent.headers | {"webhook-timestamp": str(int(sent.headers["webhook-timestamp"]) + 1)}, sent.body),
        (SECRETS, sent.headers | {"webhook-timestamp": "1614265330"}, sent.body),
        (SECRETS, sent.headers | {"webhook-signature": "v1,AAAA v2,x"}, sent.body),
    ]
    for secrets, headers, body in changes:
        with pytest.raises(ValueError, match=r"no signature|older"):
            verify(secrets, headers, body)
