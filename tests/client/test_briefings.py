from __future__ import annotations

import pytest

import coordinator
from coordinator.errors import NotFound
from coordinator.model.briefing import BriefingKind


async def test_an_agent_is_briefed_of_what_it_watches_and_of_directives(database_url: str) -> None:
    async with (
        coordinator.connect(database_url, agent="lead") as lead,
        coordinator.connect(database_url, agent="coder") as client,
    ):
        assert (await client.briefings.subscribe("coder", ["build/*"])).patterns == ["build/*"]
        await lead.signals.set("build/state", "green")
        sent = await lead.directives.send("Add tests.", to_agent="coder")
        items = await client.briefings.read("coder", news=True)
        assert [(item.kind, item.key, item.text) for item in items] == [
            (BriefingKind.DIRECTIVE, str(sent.id), "Add tests."),
            (BriefingKind.SIGNAL, "build/state", '"green"'),
        ]
        assert await client.briefings.read("coder", news=True) == []
        assert [item.kind for item in await client.briefings.read("coder", again=False)] == [BriefingKind.AGENT]
        (listed,) = [briefing async for briefing in client.briefings.list()]
        assert (listed.agent, list(listed.told)) == ("coder", ["build/state"])
        with pytest.raises(NotFound):
            await client.briefings.read("nobody")
