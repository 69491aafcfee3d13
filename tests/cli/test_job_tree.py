from __future__ import annotations

import pytest

from tests.cli.conftest import Program


@pytest.fixture
def worker(program: Program) -> str:
    return program.text("agent", "register", "w", "--job-type", "x", "--ttl", "1h").strip()


@pytest.mark.usefixtures("worker")
def test_a_tree_is_drawn_paused_resumed_and_cancelled(program: Program) -> None:
    root = program.text("job", "enqueue", "x").strip()
    lines = '{"type": "a"}\n{"type": "b", "parent": 0, "after": [0]}\n'
    first, second = program.json("job", "enqueue", "--parent", root, "--lines", "-", stdin=lines.encode())
    last = program.json("job", "enqueue", "c", "--parent", root, "--after", first["id"], "--after", root,
                        "--after-mode", "any", "--on-failure", "ignore")  # fmt: skip
    assert (second["status"], last["status"]) == ("waiting", "waiting")
    assert program.text("job", "tree", root).splitlines() == [
        f"x  {root}  queued",
        f"├─ a  {first['id']}  queued",
        f"│  └─ b  {second['id']}  waiting (jobs)  after {first['id']}",
        f"└─ c  {last['id']}  waiting (jobs)  after {', '.join(sorted([first['id'], root]))}",
    ]
    listed = program.json("job", "tree", root, "--limit", "2")
    assert [row["id"] for row in listed] == [root, first["id"]]
    assert [row["id"] for row in program.json("job", "list", "--parent", root)] == [last["id"], first["id"]]
    assert len(program.json("job", "list", "--root", root)) == 3
    assert program.json("job", "pause", root, "--tree", "--reason", "lunch")["status"] == "waiting"
    assert program.json("job", "claim", "--agent", "w") == []
    assert ": lunch." in program.json("job", "why", first["id"])["sentence"]
    assert program.json("job", "resume", root, "--tree")["status"] == "queued"
    (grant,) = program.json("job", "claim", "--agent", "w")
    assert program.text("job", "pause", root) == "paused; it runs, and this attempt continues\n"
    assert program.text("job", "resume", root, "--tree").startswith("resumed, with all jobs below it; it is running")
    own = (root, "--agent", "w", "--fence", str(grant["fence"]))
    program.fails(2, "job", "cancel", *own)
    program.fails(2, "job", "cancel", root, "--children", "--agent", "w")
    assert program.text("job", "cancel", *own, "--children").strip() == "3 jobs cancelled"
    assert program.json("job", "show", last["id"])["status"] == "cancelled"
    text = program.text("job", "cancel", root, "--tree")
    assert text.startswith("1 job cancelled; the job itself is running, its fence is revoked in ")
    assert f"c  {last['id']}  cancelled  after" in program.text("job", "tree", root)
    assert program.fails(4, "job", "enqueue", "x", "--parent", root)["code"] == "ZC328"


def test_the_rest_of_a_large_tree_is_announced_when_it_is_cancelled(program: Program) -> None:
    root = program.text("job", "enqueue", "x").strip()
    program.run("job", "enqueue", "x", "--parent", root, "--lines", "-", stdin=b"{}\n" * 1001)
    assert program.text("job", "cancel", root, "--tree") == "1000 jobs cancelled; a daemon cancels 2 more\n"
    assert program.text("job", "cancel", root, "--tree") == "2 jobs cancelled\n"
