from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.model.catalogue import LIMITS
from tests.cli.conftest import Program


@pytest.fixture
def worker(program: Program) -> str:
    return program.text("agent", "register", "w", "--job-type", "x", "--job-type", "y", "--ttl", "1h").strip()


def claimed(program: Program) -> tuple[str, ...]:
    """Claim a job, and return the arguments of the verbs of its worker."""
    (grant,) = program.json("job", "claim", "--agent", "w")
    return (grant["id"], "--agent", "w", "--fence", str(grant["fence"]))


@pytest.mark.usefixtures("worker")
def test_a_job_is_enqueued_claimed_and_completed(program: Program) -> None:
    job = program.text("job", "enqueue", "x", '{"page": 7}', "--key", "acme").strip()
    (grant,) = program.json("job", "claim", "--agent", "w")
    assert (grant["id"], grant["payload"], grant["key"]) == (job, {"page": 7}, "acme")
    attempt = (job, "--agent", "w", "--fence", str(grant["fence"]))
    lease = program.json("job", "progress", *attempt, "--percent", "50", "--message", "half")
    assert lease["cancel_at"] is None
    assert program.json("job", "complete", *attempt, '{"words": 812}')["status"] == "completed"
    assert program.json("job", "complete", *attempt)["status"] == "completed"  # a repetition
    error = program.fails(4, "job", "fail", *attempt, "too late")
    assert (error["code"], error["detail"]["status"]) == ("ZC320", "completed")
    assert program.json("job", "claim", "--agent", "w") == []


@pytest.mark.usefixtures("worker")
def test_an_attempt_fails_and_is_retried_or_not(program: Program) -> None:
    program.json("job", "enqueue", "x")
    failed = program.json("job", "fail", *claimed(program), "no space", "--retry-at", "10m")
    assert failed["status"] == "scheduled"
    due = datetime.fromisoformat(failed["due_at"]) - datetime.now(UTC)
    assert timedelta(minutes=5) < due <= timedelta(minutes=10)
    program.json("job", "enqueue", "x")
    final = program.json("job", "fail", *claimed(program), "no such page", "--final")
    assert (final["status"], final["reason"]) == ("failed", "error")


@pytest.mark.usefixtures("worker")
def test_a_job_is_released_snoozed_reconciled_and_cancelled(program: Program) -> None:
    job = program.json("job", "enqueue", "x")["id"]
    assert program.json("job", "release", *claimed(program))["status"] == "queued"
    attempt = claimed(program)
    assert program.json("job", "reconcile", "--agent", "w", "--fence", attempt[-1]) == []
    (lost,) = program.json("job", "reconcile", "--agent", "w", "--fence", "999")
    assert (lost["fence"], lost["verdict"]) == (999, "lost")
    assert program.json("job", "cancel", job, "--reason", "The page is gone")["status"] == "running"
    assert program.run("-o", "text", "job", "progress", *attempt).stdout.startswith(
        "a cancellation was requested: stop"
    )
    assert program.json("job", "snooze", *attempt, "1h")["status"] == "cancelled"
    later = program.json("job", "enqueue", "x", "--delay", "1h")["id"]
    assert program.text("job", "cancel", later) == "cancelled\n"
    assert program.fails(4, "job", "cancel", later)["code"] == "ZC323"


@pytest.mark.usefixtures("worker")
def test_short_output_of_a_claim_is_an_id_and_a_fence_on_each_line(program: Program) -> None:
    jobs = [program.json("job", "enqueue", "x")["id"] for _ in range(2)]
    lines = program.text("job", "claim", "--agent", "w", "--limit", "5", "--short").splitlines()
    assert [line.split()[0] for line in lines] == jobs
    assert program.text("job", "claim", "--agent", "w", "--short") == ""


@pytest.mark.usefixtures("worker")
def test_a_claim_that_waits_takes_what_is_there_or_ends_with_8(program: Program) -> None:
    program.fails(8, "job", "claim", "--agent", "w", "--wait", "100ms")
    job = program.json("job", "enqueue", "x")["id"]
    assert [grant["id"] for grant in program.json("job", "claim", "--agent", "w", "--wait", "1m")] == [job]


def test_a_time_is_an_instant_or_a_duration_from_now(program: Program) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    made = program.json("job", "enqueue", "x", "--at", at.isoformat().replace("+00:00", "Z"))
    assert datetime.fromisoformat(made["scheduled_at"]) == at
    assert program.json("job", "enqueue", "x", "--at", "10m")["status"] == "scheduled"
    for wrong in ("tomorrow", "2030-13-01", "10x", "-5m", ""):
        assert program.fails(5, "job", "enqueue", "x", f"--at={wrong}")["hint"]


def test_a_duplicate_is_refused_or_answered_by_the_first_job(program: Program) -> None:
    first = program.json("job", "enqueue", "x", "--dedupe-key", "k")
    assert program.fails(4, "job", "enqueue", "x", "--dedupe-key", "k")["code"] == "ZC321"
    again = program.json("job", "enqueue", "x", "--dedupe-key", "k", "--on-duplicate", "skip")
    assert (again["id"], again["created"]) == (first["id"], False)


def lines(*jobs: Any) -> bytes:
    return b"".join(json.dumps(job).encode() + b"\n" for job in jobs)


def test_a_job_is_enqueued_for_each_line_and_options_are_the_defaults(program: Program, tmp_path: Path) -> None:
    given = lines({"payload": 1}, {"type": "y", "queue": "other", "delay": "1h"}) + b"\n" + lines({})
    made = program.json("job", "enqueue", "x", "--queue", "usual", "--lines", "-", stdin=given)
    assert [(job["type"], job["queue"], job["status"]) for job in made] == [
        ("x", "usual", "queued"),
        ("y", "other", "scheduled"),
        ("x", "usual", "queued"),
    ]
    (tmp_path / "jobs.jsonl").write_bytes(given)
    assert len(program.json("job", "enqueue", "x", "--lines", str(tmp_path / "jobs.jsonl"))) == 3
    assert program.json("job", "enqueue", "--lines", "-") == []


def test_more_lines_than_one_call_takes_are_several_calls(program: Program) -> None:
    large = {"payload": "x" * (LIMITS["json"] - 100)}
    count = LIMITS["job_batch_bytes"] // 2 // LIMITS["json"]
    error = program.fails(5, "job", "enqueue", "x", "--lines", "-", stdin=lines(*[large] * count, {"priority": 300}))
    assert error["message"].startswith(f"line {count + 1}: a priority of 300 is out of range")
    error = program.fails(
        5, "job", "enqueue", "x", "--lines", "-", stdin=lines(*[large] * (count + 1), {"priority": 300})
    )
    assert error["message"].endswith(f"({count} jobs of earlier lines were enqueued)")
    assert program.json("queue", "get", "default")["queued_count"] == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lines({}) + b"{", "line 2: invalid JSON"),
        (lines({}, 7), "line 2: not a JSON object"),
        (lines({}) + b"\xff\n", "line 2 is not UTF-8"),
        (lines({}, {"typ": "y"}), "line 2: "),
        (lines({}, {"type": ""}), "line 2: the type is empty"),
    ],
    ids=str,
)
def test_a_malformed_line_is_named_and_nothing_is_enqueued(program: Program, given: bytes, message: str) -> None:
    assert program.fails(5, "job", "enqueue", "x", "--lines", "-", stdin=given)["message"].startswith(message)
    assert program.json("queue", "list") == []


def test_bad_input_is_refused_with_a_hint(program: Program, worker: str) -> None:
    program.fails(2, "job", "enqueue")
    program.fails(2, "job", "enqueue", "x", "{}", "--lines", "-")
    program.fails(5, "job", "enqueue", "x", "--lines", "absent")
    program.fails(5, "job", "enqueue", "x", "{")
    program.fails(5, "job", "cancel", "abc")
    program.fails(3, "job", "cancel", worker)
    program.fails(3, "job", "claim", "--agent", "nobody")
    program.fails(5, "job", "progress", worker, "--agent", "w", "--fence", "1", "--percent", "much")
    program.text("agent", "register", "idle")
    assert program.fails(5, "job", "claim", "--agent", "idle")["code"] == "ZC105"


@pytest.mark.usefixtures("worker")
def test_a_job_stores_steps_waits_asks_and_is_retried_from_a_step(program: Program) -> None:
    job = program.json("job", "enqueue", "x")["id"]
    mine = claimed(program)
    assert program.json("job", "step", *mine, "fetch", '{"n": 1}')["result"] == {"n": 1}
    waiting = program.json(
        "job", "suspend", *mine, "ready", "--signal", 'state="ok"', "--event", "custom.x=7", "--ttl", "1h"
    )
    assert waiting["status"] == "waiting"
    assert "first of signal" in program.text("job", "why", job)
    program.fails(4, "job", "step", *mine, "late")
    shown = program.text("job", "show", job)
    assert "It waits for the first of signal" in shown
    assert "fetch" in shown.splitlines()[-1]
    assert program.json("job", "show", job)["status"] == "waiting"
    program.json("job", "cancel", job)
    (made,) = program.json("job", "retry", job, "--from", "ready")
    assert made["steps"] == 1
    job = made["id"]
    mine = claimed(program)
    assert [step["name"] for step in program.json("job", "steps", job)] == ["fetch"]
    program.json("signal", "set", "state", '"ok"', "--json")
    assert "the wait is over" in program.text(
        "job", "suspend", *mine, "ready", "--signal", 'state="ok"', "--delay", "1h"
    )
    program.json(
        "job",
        "ask",
        *mine,
        "approval",
        "Deploy?",
        "--option",
        "yes",
        "--option",
        "no",
        "--ttl",
        "1h",
        "--default",
        '"no"',
    )
    (question,) = program.json("job", "questions")
    assert (question["job"], question["question"], question["fallback"]) == (job, "Deploy?", "no")
    assert "Deploy?" in program.text("job", "questions")
    assert program.fails(5, "--actor", "w", "job", "answer", job, "yes")["code"] == "42501"
    assert program.text("--actor", "boss", "job", "answer", job, "yes", "--reason", "ok") == "answered\n"
    assert [step["kind"] for step in program.json("job", "steps", job)] == ["step", "wait", "answer"]
    assert "approval" in program.text("job", "steps", job)
    mine = claimed(program)
    program.fails(2, "job", "suspend", *mine, "s", "--signal", "a", "--conditions", "[]")
    conditions = '[{"at": "2000-01-01T00:00:00Z"}]'
    assert program.json("job", "suspend", *mine, "s", "--conditions", conditions)["result"]["met"] == 0


@pytest.mark.usefixtures("worker")
def test_output_is_written_printed_and_followed_to_the_end(program: Program) -> None:
    job = program.json("job", "enqueue", "x")["id"]
    attempt = claimed(program)
    assert program.text("job", "output", job) == ""
    assert program.json("job", "write", *attempt, "The answer\n\x1b[2J") == {"last": 1}
    assert program.text("job", "write", *attempt, "--chunk", '{"is": 42}', "--chunk", "[1]") == "chunk 3\n"
    assert (
        program.text("job", "write", *attempt, "--chunk", '{"is": 42}', "--chunk", "[1]", "--seq", "2") == "chunk 3\n"
    )
    assert program.text("job", "output", job) == 'The answer\n\\x1b[2J{"is":42}\n[1]\n'
    lines = program.run("job", "output", job, "--after", "1").stdout.splitlines()
    assert [json.loads(line)["chunk"] for line in lines] == [{"is": 42}, [1]]
    program.fails(2, "job", "write", *attempt)
    program.fails(5, "job", "write", *attempt, "x", "--seq", "9")
    program.json("job", "complete", *attempt)
    assert program.text("job", "output", job, "--follow", "--after", "2") == "[1]\n"


def test_options_of_zero_and_empty_text_are_not_ignored(program: Program) -> None:
    assert "0 attempts" in program.fails(5, "job", "enqueue", "x", "--max-attempts", "0")["message"]
    program.run("job", "enqueue", "x")
    assert program.json("job", "list", "--type", "") == []


def test_a_time_that_is_too_far_ahead_is_named(program: Program) -> None:
    error = program.fails(5, "job", "enqueue", "x", "--at", "2099-01-31T14:00Z")
    assert error["message"].startswith("an at of 2099-01-31T")
    error = program.fails(5, "job", "enqueue", "x", "--start-by", "2099-01-31T14:00Z")
    assert error["message"].startswith("a start_by of 2099-01-31T")


def test_malformed_json_is_described_once(program: Program) -> None:
    error = program.fails(5, "job", "enqueue", "x", "{bad")
    assert error["message"] == "invalid JSON: object keys must be strings (byte 1)"
