from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import structlog

from coordinator import config
from coordinator.config import SETTINGS, Config, load
from coordinator.config.value import Given, convert
from coordinator.errors import ConfigurationError
from coordinator.model import address, duration

DATABASE = "postgresql://u@h/d"
TOKEN = "coo_" + "a" * 42


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a home without settings of the tester's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def settings(environment: Mapping[str, str] | None = None, **flags: str) -> Config:
    return load(environment=environment or {}, flags={name: (f"--{name}", value) for name, value in flags.items()})


def test_every_setting_is_declared_and_says_what_applies_without_a_value() -> None:
    assert list(SETTINGS) == list(Config.__struct_fields__)
    for name, setting in SETTINGS.items():
        assert setting.help[0].isupper(), name
        assert not setting.help.endswith("."), name
        assert setting.unit, name
        assert (setting.default is None) == (setting.unset is not None), name


def test_a_default_is_written_as_it_can_be_given() -> None:
    for name, setting in SETTINGS.items():
        if setting.default is not None:
            assert convert(setting, Given(setting.default_text, name, 0)) == setting.default, name


def test_every_number_has_a_range_that_holds_its_default() -> None:
    numbers = {
        name: value.total_seconds() if isinstance(value, timedelta) else value
        for name, value in msgspec.structs.asdict(Config()).items()
        if isinstance(value, int | float | timedelta)
    }
    assert numbers.keys() == {name for name, setting in SETTINGS.items() if setting.max and setting.default is not None}
    for name, value in numbers.items():
        assert SETTINGS[name].min <= value <= SETTINGS[name].max, name


def test_the_example_file_is_valid(tmp_path: Path) -> None:
    example = Path(__file__).parent.parent / "examples" / "coordinator.yaml"
    (tmp_path / "database-url").write_text(DATABASE)
    (tmp_path / "direct-url").write_text(DATABASE)
    (tmp_path / "coordinator.yaml").write_text(example.read_text().replace("/run/secrets", str(tmp_path)))
    assert load(environment={}).log_level == "debug"
    production = load(profile="production", environment={})
    assert (production.schema, production.database_url) == ("verify", DATABASE)


def test_the_nearer_source_wins(tmp_path: Path) -> None:
    (tmp_path / "coordinator.yaml").write_text("profiles: {dev: {port: 1, host: a, project: p}}")
    environment = {"COORDINATOR_PROFILE": "dev", "COORDINATOR_PORT": "2", "COORDINATOR_HOST": "b"}
    found = settings(environment, port="3")
    assert (found.port, found.host, found.project) == (3, "b", "p")
    assert settings({"COORDINATOR_HOST": ""}).host == "127.0.0.1"


def test_aliases_and_kubernetes_variables_are_understood() -> None:
    assert settings({"DATABASE_URL": DATABASE}).database_url == DATABASE
    ours = {"DATABASE_URL": "postgresql://other/d", "COORDINATOR_DATABASE_URL": DATABASE}
    assert settings(ours).database_url == DATABASE
    few = settings({"MAX_CONNECTIONS": "3"})
    assert (few.min_connections, few.max_connections) == (3, 3)
    # What Kubernetes sets for a Service with the name "coordinator".
    assert settings({"COORDINATOR_PORT": "tcp://10.0.0.1:7420", "COORDINATOR_SERVICE_PORT": "7420"}).port == 7420


def test_a_direct_url_applies_only_to_its_own_database(tmp_path: Path) -> None:
    both = {"COORDINATOR_DATABASE_URL": DATABASE, "COORDINATOR_DIRECT_URL": "postgresql://u@direct/d"}
    assert settings(both).direct_url == "postgresql://u@direct/d"
    assert settings(both, database_url="postgresql://u@elsewhere/d").direct_url is None
    with pytest.raises(ConfigurationError, match="COORDINATOR_DIRECT_URL is set, but database_url is not"):
        settings({"COORDINATOR_DIRECT_URL": DATABASE})


def test_a_variable_called_like_the_flag_is_accepted_if_there_is_an_address() -> None:
    other = {"COORDINATOR_URL": "https://of.another.program"}
    assert settings({**other, "COORDINATOR_DATABASE_URL": DATABASE}).database_url == DATABASE
    assert load(environment=other, flags={"database_url": ("--url", DATABASE)}).database_url == DATABASE


def test_a_secret_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{DATABASE}\n")
    (tmp_path / "coordinator.yaml").write_text("profile: dev\nprofiles: {dev: {database_url_file: secret}}")
    assert settings().database_url == DATABASE
    assert settings({"COORDINATOR_DATABASE_URL_FILE": str(tmp_path / "secret")}).database_url == DATABASE
    with pytest.raises(ConfigurationError, match="both set"):
        settings({"COORDINATOR_DATABASE_URL_FILE": "secret", "COORDINATOR_DATABASE_URL": DATABASE})


def test_the_nearest_file_is_used(tmp_path: Path) -> None:
    (tmp_path / ".config" / "coordinator").mkdir(parents=True)
    (tmp_path / ".config" / "coordinator" / "coordinator.yaml").write_text("profiles: {a: {port: 1}}")
    assert load(profile="a", environment={}).port == 1
    (tmp_path / "coordinator.yaml").write_text("profiles: {a: {port: 2}}")
    assert load(profile="a", environment={}).port == 2
    (tmp_path / "other.yaml").write_text("profiles: {a: {port: 3}}")
    assert load(profile="a", environment={"COORDINATOR_CONFIG": "other.yaml"}).port == 3
    assert load(profile="a", file="coordinator.yaml", environment={"COORDINATOR_CONFIG": "other.yaml"}).port == 2
    assert load(environment={}).port == 7420


@pytest.mark.parametrize(
    ("environment", "message", "hint"),
    [
        ({"COORDINATOR_PORT": "http"}, 'COORDINATOR_PORT: "http" is not a whole number', ""),
        ({"COORDINATOR_PORT": "70000"}, "COORDINATOR_PORT", "Give 0 to 65535."),
        ({"MAX_CONNECTIONS": "0"}, "MAX_CONNECTIONS", "Give 1 to 1000."),
        ({"MAX_CONNECTIONS": "9" * 30}, "out of range", ""),
        ({"COORDINATOR_CALL_TIMEOUT_S": "soon"}, "not a duration", "30s"),
        ({"COORDINATOR_CALL_TIMEOUT_S": "0"}, "out of range", "0.1 to 3600 seconds"),
        ({"COORDINATOR_EVENT_RETENTION": "1s1d"}, "not a duration", ""),
        (
            {"DATABASE_URL": "htp://host"},
            "DATABASE_URL is not the address of a database or a daemon",
            "https://host:7420",
        ),
        ({"DATABASE_URL": "host"}, "DATABASE_URL is not the address of a database or a daemon", "postgresql://"),
        (
            {"DATABASE_URL": "postgresql://host/d", "COORDINATOR_DIRECT_URL": "https://host"},
            "COORDINATOR_DIRECT_URL is not the address of a PostgreSQL database",
            "postgresql://",
        ),
        ({"COORDINATOR_LOG_LEVEL": "loud"}, 'COORDINATOR_LOG_LEVEL: "loud" is not a valid log level', "Use one of"),
        ({"COORDINATOR_WORKTREES": "own"}, "COORDINATOR_WORKTREES", "Use one of separate, shared."),
        ({"COORDINATOR_LOG_LEVEL": "inof"}, "COORDINATOR_LOG_LEVEL", "Did you mean info?"),
        ({"COORDINATOR_SCHEMA": "drop"}, "COORDINATOR_SCHEMA", "Use one of apply, verify."),
        ({"COORDINATOR_HOST": " "}, "COORDINATOR_HOST is empty", ""),
        ({"COORDINATOR_MIN_CONNECTIONS": "9", "MAX_CONNECTIONS": "3"}, "COORDINATOR_MIN_CONNECTIONS is 9", "Lower"),
        ({"COORDINATOR_DATABSE_URL": "x"}, "COORDINATOR_DATABSE_URL", "Did you mean COORDINATOR_DATABASE_URL?"),
        ({"COORDINATOR_URL": DATABASE}, "unknown setting COORDINATOR_URL", "Did you mean COORDINATOR_DATABASE_URL?"),
        ({"COORDINATOR_DATABASE_URL_FILE": "none"}, "named by COORDINATOR_DATABASE_URL_FILE, cannot be read", ""),
        ({"COORDINATOR_HTTP_BODY_BYTES": "1MB"}, "not a whole number", ""),
        ({"COORDINATOR_HTTP_PAGE": "10001"}, "out of range", "1 to 10000"),
        ({"COORDINATOR_HTTP_HEARTBEAT_S": "0"}, "out of range", "1 to 30 seconds"),
        ({"COORDINATOR_HTTP_HEADBYTES": "1"}, "unknown setting", "Did you mean COORDINATOR_HTTP_HEAD_BYTES?"),
        ({"COORDINATOR_PROFILE": "dev"}, "there is no coordinator.yaml", "--config"),
    ],
)
def test_a_malformed_setting_is_named_with_a_hint(environment: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        settings(environment)
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")
    assert raised.value.hint


@pytest.mark.parametrize(
    "written",
    [
        "db: {history: {retention_days: 3, max_entries: 500}}",
        "db.history.retention_days: 3, db.history.max_entries: 500",
    ],
)
def test_a_profile_bounds_observations_as_other_programs_write_it(tmp_path: Path, written: str) -> None:
    (tmp_path / "coordinator.yaml").write_text(f"profiles: {{dev: {{{written}}}}}")
    loaded = load(profile="dev", environment={})
    assert (loaded.history_retention_days, loaded.history_max_entries) == (3, 500)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("profiles: {dev: {prot: 1}}", 'unknown setting "prot"', "Did you mean port?"),
        ("profiles: {dev: {http_steams: 1}}", 'unknown setting "http_steams"', "Did you mean http_streams?"),
        ("profiles: {dev: {http_wait_s: 2h}}", "is out of range", "0.1 to 3600 seconds"),
        ("profile: dev\nprofils: {}", 'unknown setting "profils"', "Did you mean profiles?"),
        ("profiles: {dve: {}}", 'profile "dev" not found', "Did you mean dve?"),
        ("profiles: {dev: {port: [1]}}", "is neither text nor a number", ""),
        ("profiles: {dev: {port: true}}", "is neither text nor a number", ""),
        ("profiles: {dev: {port: 1.5}}", "is not a whole number", ""),
        ("profiles: {dev: [1]}", "is not a mapping", ""),
        ("profiles: [1]", "is not a mapping", ""),
        ("profiles: {dev: {db: {history: {max_entries: -1}}}}", '.yaml: "-1" is out of range', "1 to "),
        (
            "profiles: {dev: {db: {history: {max_entires: 1}}}}",
            'unknown setting "db.history.max_entires"',
            "max_entries",
        ),
        ("profiles: {dev: {db: 1}}", 'unknown setting "db"', ""),
        ("profiles: {dev: {db.history.max_entries: 1, history_max_entries: 2}}", "is set, too", ""),
        ("- 1", "is not a mapping", ""),
        ("profiles: {dev: {database_url: 'postgresql://u:s3cret", "is not valid YAML", ""),
        ("profiles: {dev: {database_url_file: gone}}", "cannot be read", ""),
        ("profiles: {dev: {database_url_file: 1}}", "is not a path", ""),
        ("profiles: {dev: {database_url: x, database_url_file: y}}", "is set, too", ""),
        ("a: &a [x]\nb: !!python/object/apply:os.abort []", "is not valid YAML", ""),
    ],
)
def test_a_malformed_file_is_named_with_a_hint(tmp_path: Path, content: str, message: str, hint: str) -> None:
    (tmp_path / "coordinator.yaml").write_text(content)
    with pytest.raises(ConfigurationError) as raised:
        load(profile="dev", environment={})
    assert message in raised.value.message
    assert "coordinator.yaml" in raised.value.message
    assert hint in (raised.value.hint or "")
    assert "s3cret" not in f"{raised.value.message} {raised.value.hint}"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 1_000_001])
def test_a_file_that_is_not_text_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "coordinator.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"coordinator\.yaml"):
        load(environment={})


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "mysql://u:s3cret@h/d",
        "postgresql//u:s3cret@h/d",
        "host=h password=s3cret",
        "postgresql://u:s3cret@x@h/d",
        "postgresql://u:s3cret/x@h/d",
        "postgresql://u:s3cret#x@h/d",
        "postgresql://u:s3cret?x@h/d",
        "postgresql://u:s3cret@h:port/d",
        "postgresql://u:s3cret@h:70000/d",
        "postgresql://u:s3cret@[::1/d",
        "postgresql://u:s3cret@h/d?sslmode=requird",
        "postgresql://u:s3cret@h/d?sslmode",
        "postgresql://u:s3cret@h/d?sslmode=",
        "postgresql://u:s3cret@h/d?channel_binding=require",
        "postgresql://u:s3cret@h/d?sslrootcert=/there/is/none",
        "postgresql://u:s3cret@h/d?port=x",
        "postgresql://u:s3cret@h/d\nx",
        "postgresql://u:s3cret@h/\ud800",
    ],
)
def test_a_malformed_address_is_rejected_without_showing_its_password(url: str) -> None:
    for environment, flags in (({"DATABASE_URL": url}, {}), ({}, {"database_url": url})):
        with pytest.raises(ConfigurationError) as raised:
            settings(environment, **flags)
        assert raised.value.message.startswith(("DATABASE_URL ", "--database_url "))
        assert raised.value.hint
        assert "s3cret" not in f"{raised.value.message} {raised.value.hint}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://u:p%40ss@h:5432/d?sslmode=require",
        "postgresql://u@h1:1,h2:2/d?target_session_attrs=read-write",
        "postgresql://u@[::1]:5432/d",
        "postgresql://u@/d?host=/var/run/postgresql&port=5432",
        "postgresql://u@%2Fvar%2Frun/d",
        "postgresql://u@h/d?options=-c%20statement_timeout=5s&application_name=x",
    ],
)
def test_addresses_of_libpq_are_accepted(url: str) -> None:
    assert settings({"DATABASE_URL": url}).database_url == url


def test_tls_options_of_the_environment_are_checked(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    for variable, value in (
        ("PGSSLMODE", "verify_full"),
        ("PGSSLROOTCERT", "/there/is/none"),
        ("PGSSLROOTCERT", str(tmp_path / "no.pem")),
        ("PGSSLCERT", str(tmp_path / "no.pem")),
    ):
        with pytest.raises(ConfigurationError):
            settings({"DATABASE_URL": DATABASE, variable: value})
    assert settings({"DATABASE_URL": f"{DATABASE}?sslmode=disable", "PGSSLROOTCERT": "/there/is/none"}).database_url


def test_an_address_is_shown_without_its_password() -> None:
    assert address.without_password("postgresql://u:p%40@h:1/d?sslmode=require&password=x") == (
        "postgresql://u@h:1/d?sslmode=require"
    )
    assert address.without_password(DATABASE) == DATABASE


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("7d", 604800),
        ("45", 45),
        ("0.5", 0.5),
        ("500ms", 0.5),
        (" 1H ", 3600),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert duration.parse(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "1h1h", "30m1h", "-5s", "1 h", "1e3", "nan", "\u0661s", "1" * 60])
def test_a_malformed_duration_is_rejected(text: str) -> None:
    with pytest.raises(ValueError):
        duration.parse(text)


def test_only_config_reads_the_environment() -> None:
    package = Path(config.__file__).parent.parent
    reads = re.compile(r"os\.(environ(\.get|\[)|getenv)|envvar=")
    readers = {path.name for path in package.rglob("*.py") if reads.search(path.read_text())}
    assert readers == set(), "settings come from coordinator.config"
    assert "os.environ" in Path(config.__file__).read_text()


def test_settings_cost_no_slow_import() -> None:
    code = "import sys; from coordinator.config import load; load(environment={}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"yaml", "ssl", "asyncpg"} & set(done.stdout.split())


def test_a_secret_from_a_file_is_read_again_each_time(home: Path) -> None:
    (home / "token").write_text(f"{TOKEN}1\n")
    loaded = settings({"COORDINATOR_TOKEN_FILE": "token"}).token
    assert loaded is not None
    assert (loaded, config.current(loaded)) == (f"{TOKEN}1", f"{TOKEN}1")
    (home / "token").write_text(f"{TOKEN}2\n")
    with structlog.testing.capture_logs() as logs:
        assert [config.current(loaded), config.current(loaded)] == [f"{TOKEN}2"] * 2
    assert [line["event"] for line in logs] == ["secret.reloaded"], "once, and without the secret"
    assert TOKEN not in str(logs)
    assert loaded == f"{TOKEN}1"
    assert config.current("as given") == "as given"


@pytest.mark.parametrize("content", [None, "", "coo_half", "\0"])
def test_a_file_that_is_no_longer_usable_leaves_the_last_secret(home: Path, content: str | None) -> None:
    path = home / "token"
    path.write_text(f"{TOKEN}1")
    loaded = settings({"COORDINATOR_TOKEN_FILE": "token"}).token
    assert loaded is not None
    path.write_text(f"{TOKEN}2")
    assert config.current(loaded) == f"{TOKEN}2"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with structlog.testing.capture_logs() as logs:
        assert [config.current(loaded), config.current(loaded)] == [f"{TOKEN}2"] * 2
    assert [line["event"] for line in logs] == ["secret.refused"], "once"
    path.write_text(f"{TOKEN}3")
    assert config.current(loaded) == f"{TOKEN}3"


@pytest.mark.parametrize("name", ["database_url", "direct_url"])
@pytest.mark.parametrize(
    ("new", "taken"),
    [
        ("postgresql://u:two@h/d?sslmode=require", True),
        ("postgresql://v:two@h/d?sslmode=require", True),
        ("postgresql://h/d?sslmode=require&user=v&password=two", True),
        ("postgresql://u:two@other/d?sslmode=require", False),
        ("postgresql://u:two@h/other?sslmode=require", False),
        ("postgresql://u:two@h/d", False),
        ("postgresql://u:two@h/d?sslmode=verfy-full", False),
        ("https://h", False),
        ("", False),
    ],
)
def test_a_file_may_change_the_user_and_password_of_an_address_and_nothing_else(
    home: Path, name: str, new: str, taken: bool
) -> None:
    old = "postgresql://u:one@h/d?sslmode=require"
    (home / "url").write_text(old)
    address_of = {"COORDINATOR_DATABASE_URL": old, f"COORDINATOR_{name.upper()}_FILE": "url"}
    if name == "database_url":
        del address_of["COORDINATOR_DATABASE_URL"]
    loaded = getattr(settings(address_of), name)
    (home / "url").write_text(new)
    with structlog.testing.capture_logs() as logs:
        assert config.current(loaded) == (new if taken else old)
    assert [line["event"] for line in logs] == ["secret.reloaded" if taken else "secret.refused"]
    assert "two" not in str(logs)


def test_a_secret_file_of_a_profile_is_read_again(home: Path) -> None:
    (home / "coordinator.yaml").write_text("profiles: {dev: {token_file: secrets/token}}")
    (home / "secrets").mkdir()
    (home / "secrets" / "token").write_text(f"{TOKEN}1")
    loaded = load(profile="dev", environment={}).token
    assert loaded is not None
    (home / "secrets" / "token").write_text(f"{TOKEN}2")
    assert config.current(loaded) == f"{TOKEN}2"


def test_every_setting_that_holds_a_secret_can_come_from_a_file(home: Path) -> None:
    """A new secret is declared as one: its name says so, and this test asks."""
    telling = {name for name in SETTINGS if re.search(r"(^|_)(token|password|secret|url|dsn|headers?)(_|$)", name)}
    assert telling <= {name for name, setting in SETTINGS.items() if setting.secret}
    for name, setting in SETTINGS.items():
        if setting.secret:
            (home / name).write_text(f"{TOKEN}1" if name == "token" else "postgresql://u:one@h/d")
            needed = {"COORDINATOR_DATABASE_URL": "postgresql://h/d"} if name == "direct_url" else {}
            loaded = getattr(settings({**needed, f"{setting.variable}_FILE": name}), name)
            assert config.current(loaded) == loaded
            assert type(loaded) is not str, f"{name} is not read again"
