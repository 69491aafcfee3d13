from __future__ import annotations

from coordinator.db.database import Database
from coordinator.operations import webhooks
from tests.cli.conftest import Program

URL = "https://example.com/hook"


def test_a_webhook_is_added_shown_rotated_paused_resumed_and_removed(program: Program) -> None:
    made = program.json("webhook", "add", URL, "--topic", "lock.broken", "--topic", "job.*")
    number = str(made["webhook"])
    shown = program.json("webhook", "show", number)
    assert (shown["url"], shown["topics"], shown["status"]) == (URL, ["lock.broken", "job.*"], "active")
    assert "secret" not in shown
    assert program.json("webhook", "list") == [shown]
    assert program.text("webhook", "rotate", number).strip() not in ("", made["secret"])
    assert program.json("webhook", "pause", number, "--reason", "why")["status"] == "paused"
    assert program.text("webhook", "resume", number) == f"resumed webhook {number}\n"
    assert program.json("webhook", "redrive", number) == {"webhook": int(number), "redriven": 0}
    program.fails(3, "webhook", "redrive", number, "--delivery", "1")
    assert program.json("webhook", "remove", number)["removed"] is True
    program.fails(3, "webhook", "show", number)


def test_the_secret_is_alone_on_standard_output(program: Program) -> None:
    done = program.run("webhook", "add", URL, "--topic", "*", "-o", "text")
    assert done.stdout.startswith("whsec_")
    assert "shown only this once" in done.stderr


async def test_a_test_delivery_shows_its_outcome(program: Program, db: Database) -> None:
    number = str(program.json("webhook", "add", URL, "--topic", "*")["webhook"])
    assert program.json("webhook", "test", number, "--wait", "0s")["status"] == "waiting"
    program.fails(8, "webhook", "test", number, "--wait", "0.01s")
    for work in await db.run(webhooks.ClaimDeliveries()):
        attempt = {"delivery": work.delivery, "seconds": 1, "error": "no", "response": 500}
        claim = {"webhook": work.webhook, "claim": work.claim, "attempts": [attempt]}
        await db.run(webhooks.Finish(claims=[claim]))
    (dead,) = program.json("webhook", "deliveries", number, "--status", "dead")
    assert (dead["response"], dead["error"]) == (500, "no")
    assert program.json("webhook", "delivery", str(dead["delivery"])) == dead


def test_a_private_address_is_refused_with_a_hint(program: Program) -> None:
    error = program.fails(5, "webhook", "add", "http://169.254.169.254/latest", "--topic", "*")
    assert "COORDINATOR_WEBHOOK_NETWORKS" in error["hint"]
    assert program.fails(5, "webhook", "add", URL)["hint"]
    assert program.json("webhook", "list") == []
