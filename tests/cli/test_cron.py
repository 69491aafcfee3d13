from __future__ import annotations

from tests.cli.conftest import Program


def test_a_cron_is_set_shown_listed_run_paused_resumed_and_deleted(program: Program) -> None:
    made = program.json("cron", "set", "nightly", "0 2 * * *", "report", '{"day": "{fire_at}"}', "--queue", "reports")
    assert made["job"] == {"type": "report", "queue": "reports", "payload": {"day": "{fire_at}"}}
    assert program.json("cron", "get", "nightly") == made
    changed = program.json("cron", "set", "nightly", "--zone", "Europe/Berlin", "--missed", "skip")
    assert (changed["schedule"], changed["zone"], changed["missed"]) == ("0 2 * * *", "Europe/Berlin", "skip")
    assert program.text("cron", "set", "nightly", "@daily").startswith("nightly fires next at ")
    job = program.text("cron", "run", "nightly").strip()
    assert program.json("job", "show", job)["queue"] == "reports"
    assert program.json("cron", "pause", "nightly", "--reason", "Down")["pause_reason"] == "Down"
    assert program.text("cron", "set", "nightly", "@hourly") == "nightly is paused\n"
    assert program.text("cron", "resume", "nightly").startswith("nightly fires next at ")
    assert program.text("cron", "list").split()[:2] == ["CRON", "SCHEDULE"]
    assert program.text("cron", "delete", "nightly") == "deleted nightly\n"
    assert program.fails(3, "cron", "get", "nightly")["hint"]


def test_a_schedule_is_previewed(program: Program) -> None:
    zone = ("--zone", "Asia/Tokyo", "--since", "2026-11-27T12:00Z", "--limit", "2")
    text = program.text("cron", "preview", "30 8 * * mon-fri", *zone)
    assert "Mon 2026-11-30 08:30" in text
    assert [time["at"] for time in program.json("cron", "preview", "30 8 * * mon-fri", *zone)] == [
        "2026-11-29T23:30:00Z",
        "2026-11-30T23:30:00Z",
    ]


def test_bad_input_is_refused(program: Program) -> None:
    program.fails(5, "cron", "set", "nightly", "0 2 * *", "report")
    program.fails(5, "cron", "set", "nightly", "0 2 * * *")
    program.fails(5, "cron", "set", "nightly", "0 2 * * *", "report", "{")
    assert program.json("cron", "list") == []
