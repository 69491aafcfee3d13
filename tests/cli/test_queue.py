from __future__ import annotations

from tests.cli.conftest import Program


def test_a_queue_is_set_shown_listed_paused_and_resumed(program: Program) -> None:
    made = program.json(
        "queue",
        "set",
        "mail",
        "--ageing",
        "1m",
        "--fair-by",
        "key",
        "--weight",
        "acme=3",
        "--weight",
        "a=b=2",
        "--max-waiting",
        "5",
    )
    assert (made["ageing"], made["fair_by"], made["weights"]) == ("PT60S", "key", {"acme": 3, "a=b": 2})
    assert program.json("queue", "get", "mail") == made
    changed = program.json("queue", "set", "mail", "--strict", "--max-waiting", "0")
    assert (changed["ageing"], changed["fair_by"], changed["max_waiting"]) == (None, "key", None)
    assert program.json("queue", "pause", "mail", "--reason", "Down")["pause_reason"] == "Down"
    assert program.text("queue", "pause", "mail") == "paused mail; 0 of its jobs are running\n"
    assert [queue["queue"] for queue in program.json("queue", "list") if queue["paused_at"]] == ["mail"]
    assert program.json("queue", "resume", "mail")["paused_at"] is None
    assert program.text("queue", "list").split()[:3] == ["QUEUE", "QUEUED", "COUNT"]
    assert program.fails(3, "queue", "get", "mails")["hint"].startswith('Did you mean "mail"?')


def test_a_queue_is_deleted_once_its_jobs_have_ended(program: Program) -> None:
    job = program.json("job", "enqueue", "send", "--queue", "mail")["id"]
    refused = program.fails(4, "queue", "delete", "mail")
    assert (refused["code"], refused["detail"]) == ("ZC326", {"queued": 1})
    program.json("job", "cancel", job)
    assert program.text("queue", "delete", "mail") == "deleted mail\n"
    program.fails(3, "queue", "delete", "mail")
    assert program.json("queue", "list") == []


def test_bad_input_is_refused(program: Program) -> None:
    for options in (["--weight", "acme"], ["--weight", "acme=x"], ["--weight", "acme=0"], ["--ageing", "soon"]):
        program.fails(5, "queue", "set", "mail", *options)
    program.fails(5, "queue", "set", "mail", "--fair-by", "type")
    program.fails(2, "queue", "set", "mail", "--strict", "--ageing", "1m")
    assert program.json("queue", "list") == []
