"""Documents against a small model: whatever is done in whatever order, the database and the model agree."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from coordinator.errors import CoordinatorError
from coordinator.model.json import text_of, value_of
from coordinator.operations import documents
from tests.sql.machine import Machine, check
from tests.sql.test_document import applied

P = "default"
KEPT = 10
TTL = timedelta(seconds=30)

keys = st.sampled_from(["a", "b"])
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([1e16, -0.5, "x", "\x00", "\ud800", "\U0001f600", "\ue000dead", "\\u0000"]),
)
names = st.sampled_from(["k", "l", "\x00", "items"])
objects = st.dictionaries(
    names, st.one_of(leaves, st.lists(leaves, max_size=2), st.dictionaries(names, leaves, max_size=2)), max_size=3
)
lists = st.lists(st.fixed_dictionaries({"id": st.integers(1, 3)}, optional={"s": leaves}), max_size=3)
values = st.one_of(leaves, objects, lists, st.fixed_dictionaries({"items": lists}))
expects = st.one_of(st.none(), st.sampled_from(["present", "before", "lost", 0]))


@dataclass
class Version:
    value: Any  # None: deleted
    deleted: bool
    at: float
    expires: float | None


def merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


class Documents(Machine):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.now = 0.0
        self.model: dict[str, list[Version]] = {}
        self.do(self.tx.set_clock(timedelta(0)))
        self.start: datetime = self.do(self.connection.fetchval("select transaction_timestamp()"))
        self.epoch: str = self.do(self.connection.fetchval("select coordinator.epoch_text(coordinator.epoch_stamp())"))

    def run(self, operation: Any) -> tuple[str | None, Any]:
        try:
            return None, self.do(self.tx.run(operation))
        except CoordinatorError as error:
            return error.code, json.loads(error.detail) if (error.detail or "").startswith("{") else None

    def present(self, key: str) -> Version | None:
        last = self.model.get(key, [Version(None, True, 0, None)])[-1]
        gone = last.deleted or (last.expires is not None and last.expires <= self.now)
        return None if gone else last

    def expected(self, key: str, expect: Any) -> tuple[dict[str, Any], str | None]:
        """Return the fields, and the code of the error that they lead to for a put."""
        count, present = len(self.model.get(key, [])), self.present(key)
        if expect is None:
            return {}, None
        if expect == 0:
            return {"expect": 0}, "ZC301" if present else None
        if expect == "before":
            return {"expect": count + 7}, "ZC301"
        epoch = self.epoch if expect == "present" else "00000000"
        fields = {"expect": max(count, 1), "epoch": epoch}
        return fields, None if present and expect == "present" else "ZC301"

    def write(self, operation: Any, key: str, version: Version, code: str | None) -> None:
        error, header = self.run(operation)
        assert error == code, operation
        if code == "ZC301":
            count = len(self.model.get(key, [])) if self.present(key) else None
            assert header["version"] == count
        elif code is None:
            self.model.setdefault(key, []).append(version)
            assert (header.version, header.epoch) == (len(self.model[key]), self.epoch)

    def lacking(self, key: str, code: str | None) -> str | None:
        return "ZC217" if self.present(key) is None else code

    @rule(seconds=st.sampled_from([1, 20, 60]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.do(self.tx.set_clock(timedelta(seconds=self.now)))

    @rule(key=keys, value=values, expect=expects, ttl=st.booleans())
    def put(self, key: str, value: Any, expect: Any, ttl: bool) -> None:
        fields, code = self.expected(key, expect)
        expires = self.now + TTL.total_seconds() if ttl else None
        operation = documents.Put(
            project=P, kind="k", key=key, value=text_of(value), ttl=TTL if ttl else None, **fields
        )
        self.write(operation, key, Version(value, False, self.now, expires), code)

    @rule(key=keys, patch=objects, expect=expects)
    def patch(self, key: str, patch: Any, expect: Any) -> None:
        fields, code = self.expected(key, expect)
        code, present = self.lacking(key, code), self.present(key)
        if code is None and not isinstance(present and present.value, dict):
            code = "ZC105"
        version = present and Version(merged(present.value, patch), False, self.now, present.expires)
        operation = documents.Patch(project=P, kind="k", key=key, patch=text_of(patch), **fields)
        self.write(operation, key, version or Version(None, True, 0, None), code)

    @rule(key=keys, item=st.integers(1, 3), patch=objects, below=st.booleans())
    def item(self, key: str, item: int, patch: Any, below: bool) -> None:
        code, present = self.lacking(key, None), self.present(key)
        value = copy.deepcopy(present.value) if present else None
        found: Any = value.get("items", ...) if below and isinstance(value, dict) else ... if below else value
        if code is None and not isinstance(found, list):
            code = "ZC219" if found is ... else "ZC105"
        elif code is None:
            places = [n for n, one in enumerate(found) if isinstance(one, dict) and one.get("id") == item]
            code = {0: "ZC219", 1: None}.get(len(places), "ZC333")
            if code is None:
                found[places[0]] = merged(found[places[0]], patch)
        operation = documents.Item(
            project=P, kind="k", key=key, item=str(item), patch=text_of(patch), path=["items"] if below else []
        )
        expires = present.expires if present else None
        self.write(operation, key, Version(value, False, self.now, expires), code)

    @rule(key=keys, expect=expects)
    def delete(self, key: str, expect: Any) -> None:
        fields, code = self.expected(key, expect)
        operation = documents.Delete(project=P, kind="k", key=key, **fields)
        self.write(operation, key, Version(None, True, self.now, None), self.lacking(key, code))

    @rule(key=keys, back=st.integers(-1, 12), latest=st.booleans(), expect=expects)
    def restore(self, key: str, back: int, latest: bool, expect: Any) -> None:
        fields, code = self.expected(key, expect)
        history = self.model.get(key, [])
        count = len(history)
        if not history:
            number, code = 1, "ZC217"
        elif latest:
            number = max((n for n, one in enumerate(history, 1) if not one.deleted and n > count - KEPT), default=count)
        else:
            number = max(1, count - back)
        if code is None:
            code = self.readable(key, number)
        value = history[number - 1].value if history and number <= count else None
        operation = documents.Restore(project=P, kind="k", key=key, version=None if latest else number, **fields)
        self.write(operation, key, Version(value, False, self.now, None), code)

    def readable(self, key: str, number: int) -> str | None:
        history = self.model[key]
        if number > len(history):
            return "ZC217"
        if number <= len(history) - KEPT:
            return "ZC218"
        return "ZC217" if history[number - 1].deleted else None

    @rule(key=keys, number=st.integers(1, 14), other=st.integers(1, 14))
    def read_a_version_and_compare(self, key: str, number: int, other: int) -> None:
        if key not in self.model:
            return
        code, document = self.run(documents.Get(project=P, kind="k", key=key, version=number))
        assert code == self.readable(key, number)
        if code is None:
            assert document.value == self.model[key][number - 1].value
        expected = self.readable(key, number) or self.readable(key, other)
        code, diff = self.run(documents.Diff(project=P, kind="k", key=key, version=number, other=other))
        assert code == expected
        if code is None:
            history = self.model[key]
            assert applied(history[number - 1].value, value_of(diff)) == history[other - 1].value

    @rule(key=keys, ago=st.integers(0, 200))
    def read_an_instant(self, key: str, ago: int) -> None:
        history = self.model.get(key)
        if not history:
            return
        at = self.now - ago
        number = max((n for n, one in enumerate(history, 1) if one.at <= at), default=0)
        found = history[number - 1]
        kept = number > max(len(history) - KEPT, 0)
        code, document = self.run(documents.Get(project=P, kind="k", key=key, at=self.start + timedelta(seconds=at)))
        if not kept:
            assert code == ("ZC218" if len(history) > KEPT else "ZC217")
        elif found.deleted or (found.expires is not None and found.expires <= at):
            assert code == "ZC217"
        else:
            assert code is None
            assert document.value == found.value

    @invariant()
    def readers_see_what_the_model_has(self) -> None:
        if not hasattr(self, "model"):
            return
        present = {key: len(self.model[key]) for key in sorted(self.model) if self.present(key)}
        _, listed = self.run(documents.List(project=P, kind="k"))
        assert {header.key: header.version for header in listed} == present
        for key, history in self.model.items():
            code, document = self.run(documents.Get(project=P, kind="k", key=key))
            assert code == self.lacking(key, None)
            if code is None:
                assert document.value == history[-1].value
            _, versions = self.run(documents.History(project=P, kind="k", key=key))
            numbers = range(len(history), max(len(history) - KEPT, 0), -1)
            assert [(one.version, one.deleted) for one in versions] == [(n, history[n - 1].deleted) for n in numbers]


def test_documents_agree_with_the_model(shared_url: str) -> None:
    check(Documents, shared_url, examples=4)


@pytest.mark.long
def test_documents_agree_with_the_model_for_long(shared_url: str) -> None:
    check(Documents, shared_url, examples=1000)
