from __future__ import annotations

import re
import traceback
from pathlib import Path

import pytest

from coordinator import errors
from coordinator.cli.main import USAGE
from coordinator.errors import CoordinatorError, from_sqlstate

README = Path(__file__).parent.parent / "README.md"
ALL = {name: error for name, error in vars(errors).items() if name in errors.__all__ and isinstance(error, type)}
del ALL[CoordinatorError.__name__]


def test_every_error_says_what_it_means_and_what_to_do() -> None:
    for name, error in ALL.items():
        assert (error.__doc__ or "").endswith("."), name
        assert error.remedy != CoordinatorError.remedy, name


def test_a_traceback_has_the_hint() -> None:
    error = errors.NotFound("there is no queue x", hint="Create it.")
    said = "".join(traceback.format_exception_only(error))
    assert said == "coordinator.errors.NotFound: there is no queue x\nhint: Create it.\n"


def test_the_readme_names_every_exit_code() -> None:
    (sentence,) = re.findall(r"^Exit codes: (.*?)\.$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    named = {int(number) for number in re.findall(r"\b\d+\b", sentence)}
    assert named == {0, CoordinatorError.exit_code, USAGE} | {error.exit_code for error in ALL.values()}


def test_names_and_states_are_unlike_each_other() -> None:
    for attribute in ("name", "sqlstate"):
        assert len({getattr(error, attribute) for error in ALL.values()}) == len(ALL)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("ZC104", "InvalidArgument"),
        ("ZC203", "NotFound"),
        ("ZC301", "Conflict"),
        ("ZC401", "WaitTimedOut"),
        ("ZC600", "SchemaMismatch"),
        ("42703", "SchemaMismatch"),
        ("42883", "SchemaMismatch"),
        ("3F000", "SchemaMismatch"),
        ("42501", "PermissionDenied"),
        ("22P05", "InvalidArgument"),
        ("08006", "DatabaseUnavailable"),
        ("25006", "DatabaseUnavailable"),
        ("28P01", "DatabaseUnavailable"),
        ("3D000", "DatabaseUnavailable"),
        ("53300", "DatabaseUnavailable"),
        ("55000", "DatabaseUnavailable"),
        ("55P03", "DatabaseBusy"),
        ("57P01", "DatabaseUnavailable"),
        ("XX000", "CoordinatorError"),
        ("40P01", "DatabaseBusy"),
        ("40001", "Conflict"),
    ],
)
def test_a_state_has_its_class(state: str, name: str) -> None:
    assert from_sqlstate(state).__name__ == name


def test_an_error_carries_its_own_code_or_that_of_its_class() -> None:
    assert errors.Conflict("taken").code == "ZC300"
    error = errors.Conflict("taken", code="ZC301", hint="Look again.", detail='{"version": 2}')
    assert (error.code, error.hint, error.detail, str(error)) == ("ZC301", "Look again.", '{"version": 2}', "taken")
