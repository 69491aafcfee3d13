from __future__ import annotations

import re

import pytest

from coordinator import errors
from coordinator.errors import CoordinatorError, from_sqlstate

ALL = {error.__name__: error for error in CoordinatorError.__subclasses__() if error.__module__ == errors.__name__}


def test_the_table_says_what_the_classes_say() -> None:
    rows = re.findall(r"^\| (\w+) +\| (\S.*?) +\| (\d+) +\| (\d+) +\|", errors.__doc__ or "", re.MULTILINE)
    assert {name for name, *_ in rows} == set(ALL)
    for name, state, http, code in rows:
        assert (ALL[name].http_status, ALL[name].exit_code) == (int(http), int(code)), name
        if state.startswith("ZC"):
            assert ALL[name].sqlstate.startswith(state[:3]), name


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
        ("42883", "SchemaMismatch"),
        ("3F000", "SchemaMismatch"),
        ("42501", "PermissionDenied"),
        ("22P05", "InvalidArgument"),
        ("08006", "DatabaseUnavailable"),
        ("25006", "DatabaseUnavailable"),
        ("28P01", "DatabaseUnavailable"),
        ("3D000", "DatabaseUnavailable"),
        ("53300", "DatabaseUnavailable"),
        ("57P01", "DatabaseUnavailable"),
        ("XX000", "CoordinatorError"),
        ("40P01", "Conflict"),
    ],
)
def test_a_state_has_its_class(state: str, name: str) -> None:
    assert from_sqlstate(state).__name__ == name


def test_an_error_carries_its_own_code_or_that_of_its_class() -> None:
    assert errors.Conflict("taken").code == "ZC300"
    error = errors.Conflict("taken", code="ZC301", hint="Look again.", detail='{"version": 2}')
    assert (error.code, error.hint, error.detail, str(error)) == ("ZC301", "Look again.", '{"version": 2}', "taken")
