"""What a principal may do with operations that do not exist yet: a field that names an agent is checked, whatever its name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from coordinator.api.principal import Principal
from coordinator.api.tokens import Tokens
from coordinator.errors import PermissionDenied
from coordinator.model import catalogue
from coordinator.model.operation import Operation, Scope
from coordinator.model.token import Role, Token
from coordinator.operations.agents import Named, ProjectOf, Register

PROJECT_OF = {UUID(int=1): "alpha", UUID(int=2): "beta"}


class Claim(Operation[bool], frozen=True, kw_only=True):
    """Claim a job."""

    function = "toy_claim"
    scope = Scope.IN_PROJECT
    speakers = ("worker",)

    project: str
    worker: str


class Report(Operation[bool], frozen=True, kw_only=True):
    """Report as somebody, or as nobody in particular."""

    function = "toy_report"
    scope = Scope.AGENT
    speakers = ("reporter", "agent")

    agent: UUID | None = None
    reporter: str | None = None


class Directory:
    """A database with one agent in each of two projects."""

    async def run(self, operation: Operation[Any]) -> Any:
        match operation:
            case Named():
                return (operation.project, operation.name) in {("alpha", "coder-1"), ("beta", "coder-2")}
            case ProjectOf():
                return PROJECT_OF[operation.agent]
        raise AssertionError(operation)


@pytest.fixture(autouse=True)
def rights(monkeypatch: pytest.MonkeyPatch) -> None:
    for toy in (Claim, Report):
        monkeypatch.setitem(catalogue.ROLES, toy.function, Role.agent)


def holder(role: str, project: str | None = "alpha", name: str = "the token") -> Principal:
    now = datetime.now(UTC)
    token = Token(1, name, role, project, "coo_aaaa", "x", now, now, now, None, None)
    return Principal(token, "hash", Tokens(Directory()))  # type: ignore[arg-type]


async def refused(who: Principal, operation: Operation[Any], why: str) -> None:
    with pytest.raises(PermissionDenied, match=why) as raised:
        await who.permit(operation)
    assert raised.value.hint


async def test_a_worker_must_be_an_agent_of_the_project() -> None:
    agent = holder("agent")
    mine = Claim(project="alpha", worker="coder-1")
    assert await agent.permit(mine) == mine
    for name in ("coder-2", "boss", "coordinator", ""):
        await refused(agent, Claim(project="alpha", worker=name), "may not speak as")
    await refused(agent, Claim(project="beta", worker="coder-2"), "may not use project")
    await refused(holder("reader"), mine, "has the role reader")


async def test_an_agents_token_registers_no_name_that_is_somebody_elses() -> None:
    root = Register(project="alpha", name="root")
    assert (await holder("agent").permit(root)).unreserved
    assert not (await holder("agent", name="root").permit(root)).unreserved
    assert not (await holder("manager").permit(root)).unreserved


async def test_a_manager_may_name_any_worker_except_the_loops() -> None:
    manager = holder("manager")
    assert (await manager.permit(Claim(project="alpha", worker="boss"))).worker == "boss"
    await refused(manager, Claim(project="alpha", worker="coordinator"), "may not speak as")


async def test_no_token_speaks_as_the_loops_not_even_one_of_that_name() -> None:
    await refused(holder("admin", None, "coordinator"), Report(), "may not speak as")


async def test_a_call_gets_the_tokens_name_unless_it_names_a_speaker_by_name_or_id() -> None:
    every = holder("agent", None)
    assert (await every.permit(Report())).reporter == "the token"
    assert (await every.permit(Report(agent=UUID(int=1)))).reporter is None
    assert await Principal().permit(Report()) == Report()


async def test_a_call_about_an_agent_is_confined_to_its_project() -> None:
    own = holder("agent")
    assert (await own.permit(Report(agent=UUID(int=1)))).agent
    await refused(own, Report(agent=UUID(int=2)), "may not use project")
    await refused(own, Report(), "concerns all projects")


async def test_no_role_may_call_an_operation_without_a_right() -> None:
    class Forgotten(Operation[bool], frozen=True, kw_only=True):
        function = "toy_forgotten"
        reads = True
        scope = Scope.NONE

    await refused(holder("admin", None), Forgotten(), "may not do this")
    await refused(Principal(), Forgotten(), "may not do this")


def test_a_public_write_must_declare_its_speakers() -> None:
    with pytest.raises(TypeError, match="Claim writes and declares no speakers"):

        class Claim(Operation[bool], frozen=True, kw_only=True):
            function = "toy_claim"
            scope = Scope.IN_PROJECT

            project: str
            worker: UUID


def test_a_public_operation_must_declare_its_scope() -> None:
    with pytest.raises(TypeError, match="Claim declares no scope"):

        class Claim(Operation[bool], frozen=True, kw_only=True):
            function = "toy_claim"
            speakers = ("worker",)

            project: str
            worker: UUID


@pytest.mark.parametrize(
    ("declared", "missing"),
    [
        ({"speakers": ("worker",)}, "worker"),
        ({"scope": Scope.IN_PROJECT}, "project"),
        ({"scope": Scope.AGENT}, "agent"),
        ({"page_by": ("name",)}, "after, limit"),
        ({"conditional": True}, "expect"),
    ],
)
def test_an_operation_must_have_the_fields_that_it_declares(declared: dict[str, Any], missing: str) -> None:
    namespace = {"function": "toy", "scope": Scope.NONE, "speakers": ("actor",), "__annotations__": {"actor": str}}
    with pytest.raises(TypeError, match=f"has no field {missing}"):
        type(Operation)("Toy", (Operation,), {"__module__": __name__, **namespace, **declared})


def test_a_versioned_operation_must_return_a_version() -> None:
    with pytest.raises(TypeError, match="Toy returns a row without a version"):

        class Toy(Operation[int], frozen=True, kw_only=True):
            function = "toy"
            reads = True
            scope = Scope.NONE
            versioned = True


async def test_the_project_of_an_agent_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    tokens = Tokens(Directory())  # type: ignore[arg-type]
    run = Directory().run

    class Counting:
        async def run(self, operation: Operation[Any]) -> Any:
            asked.append(operation)
            return await run(operation)

    tokens = Tokens(Counting())  # type: ignore[arg-type]
    for _ in range(3):
        assert await tokens.agents.project_of(UUID(int=1)) == "alpha"
        assert await tokens.agents.has("alpha", "coder-1")
    assert len(asked) == 2
    for _ in range(3):
        assert not await tokens.agents.has("alpha", str(uuid4()))
    assert len(asked) == 5
