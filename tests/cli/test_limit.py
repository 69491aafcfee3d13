from __future__ import annotations

from tests.cli.conftest import Program


def test_a_limit_is_set_shown_held_released_listed_and_deleted(program: Program) -> None:
    made = program.json("limit", "set", "openai", "--rate", "500", "--per", "1m", "--burst", "50")
    assert (made["kind"], made["rate"], made["per"], made["free"]) == ("rate", 500, "PT60S", 50)
    assert program.json("limit", "show", "openai")["burst"] == 50
    held = program.json("limit", "hold", "openai", "--for", "1h", "--reason", "429")
    assert held["hold_reason"] == "429"
    assert program.text("limit", "hold", "openai", "--for", "1s").startswith("openai is held; jobs start again in ")
    assert program.text("limit", "release", "openai") == "openai is not held\n"
    program.json("limit", "set", "builds", "--slots", "2", "--queue", "builds", "--per-key")
    assert [limit["name"] for limit in program.json("limit", "list")] == ["builds", "openai"]
    assert program.text("limit", "list").split()[:4] == ["NAME", "KIND", "USED", "FREE"]
    assert program.text("limit", "delete", "openai") == "deleted openai\n"
    assert program.text("limit", "delete", "openai") == "there is no limit openai\n"
    assert program.fails(3, "limit", "show", "build")["hint"].startswith('Did you mean "builds"?')


def test_each_key_has_a_rate(program: Program) -> None:
    program.json("limit", "set", "calls", "--rate", "1", "--per", "1h", "--burst", "2", "--type", "x", "--per-key")
    for key in "aab":
        program.json("job", "enqueue", "x", "--key", key)
    agent = program.json("agent", "register", "w", "--job-type", "x")["id"]
    program.json("job", "claim", "--limit", "5", "--agent", agent)
    assert program.json("limit", "show", "calls")["keys"] == [{"free": 0, "key": "a"}, {"free": 1, "key": "b"}]


def test_a_tree_has_a_limit(program: Program) -> None:
    root = program.json("job", "enqueue", "root")["id"]
    child = program.json("job", "enqueue", "x", "--parent", root)["id"]
    program.json("job", "enqueue", "x", "--parent", root)
    assert program.json("limit", "set", "review", "--slots", "1", "--tree", root)["tree"] == root
    agent = program.json("agent", "register", "w", "--job-type", "x")["id"]
    assert [grant["id"] for grant in program.json("job", "claim", "--limit", "5", "--agent", agent)] == [child]
    (waiting,) = program.json("job", "list", "--status", "waiting")
    assert f'Limit "review" of its tree is full: job {child}' in program.text("job", "why", waiting["id"])
    program.fails(5, "limit", "set", "other", "--slots", "1", "--tree", child)


def test_a_tree_has_a_budget(program: Program) -> None:
    root = program.json("job", "enqueue", "root")["id"]
    for _ in range(2):
        program.json("job", "enqueue", "x", "--parent", root)
    program.json("limit", "set", "dollars", "--budget", "9", "--reserve", "5", "--tree", root)
    agent = program.json("agent", "register", "w", "--job-type", "x")["id"]
    assert len(program.json("job", "claim", "--limit", "5", "--agent", agent)) == 1
    (waiting,) = program.json("job", "list", "--status", "waiting")
    assert 'Budget "dollars" of its tree has 4 of 9 left' in program.text("job", "why", waiting["id"])


def test_bad_input_is_refused(program: Program) -> None:
    for options in (
        [],
        ["--slots", "0"],
        ["--slots", "1", "--budget", "1"],
        ["--rate", "nan"],
        ["--rate", "-1"],
        ["--rate", "inf"],
        ["--rate", "1", "--per", "0s"],
        ["--slots", "1", "--burst", "1"],
        ["--budget", "1000000000000001"],
        ["--budget", "9" * 30],
        ["--budget", "5", "--reserve", "6"],
        ["--budget", "5", "--period", "week"],
    ):
        program.fails(5, "limit", "set", "l", *options)
    assert program.json("limit", "list") == []
    program.json("limit", "set", "l", "--slots", "1")
    program.fails(4, "limit", "set", "l", "--budget", "5")
    program.fails(5, "limit", "hold", "l", "--for", "0s")
    program.fails(3, "limit", "hold", "m", "--for", "1m")
    program.fails(3, "job", "enqueue", "x", "--limit", "m=2")
    program.fails(5, "job", "enqueue", "x", "--limit", "l=x")


def test_a_job_names_its_costs_and_its_worker_reports_them(program: Program) -> None:
    program.json("limit", "set", "dollars", "--budget", "100", "--on-exhausted", "cancel")
    job = program.json("job", "enqueue", "x", "--limit", "dollars=60")["id"]
    agent = program.json("agent", "register", "w", "--job-type", "x")["id"]
    (grant,) = program.json("job", "claim", "--agent", agent)
    assert program.json("limit", "show", "dollars")["used"] == 60
    worker = ("--agent", agent, "--fence", str(grant["fence"]))
    assert program.json("job", "spend", job, "dollars", "20", *worker)["spent"] == 20
    said = program.text("job", "spend", job, "dollars", "80", *worker)
    assert said.startswith(
        "it has spent 100 of dollars, and 0 is left for other jobs; a cancellation was requested: stop within "
    )
    program.fails(5, "job", "spend", *worker, "--", job, "dollars", "-1")
    program.fails(4, "job", "spend", job, "dollars", "1", "--agent", agent, "--fence", "1")


def test_a_terminal_shows_who_uses_a_limit_as_tables(program: Program) -> None:
    program.json("limit", "set", "l", "--rate", "1", "--per", "1h", "--burst", "5", "--per-key", "--type", "x")
    program.json("limit", "set", "m", "--slots", "3", "--type", "x")
    program.json("job", "enqueue", "x", "--key", "acme")
    agent = program.json("agent", "register", "w", "--job-type", "x")["id"]
    program.json("job", "claim", "--agent", agent)
    assert [line.split() for line in program.text("limit", "show", "m").splitlines()[-2:]] == [
        ["TYPE", "KEY", "USED"], ["x", "acme", "1"]
    ]  # fmt: skip
    assert [line.split() for line in program.text("limit", "show", "l").splitlines()[-2:]] == [
        ["KEY", "FREE"], ["acme", "4"]
    ]  # fmt: skip
