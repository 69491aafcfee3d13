"""Every setting, declared once: its type, default, range, unit and help.

``docs/settings.md``, the help of command-line options and the checks of values are derived from it.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from coordinator.model import duration
from coordinator.model.address import without_password
from coordinator.model.catalogue import LIMITS
from coordinator.model.hint import DEFAULT_PROJECT

__all__ = ["PREFIX", "SETTINGS", "Config", "Setting"]

PREFIX = "COORDINATOR_"
YEAR_S = 366 * 86_400


class Setting(msgspec.Struct, frozen=True):
    """A setting. A number has a range; for a duration, it is in seconds.

    ``unset`` describes the behaviour of a setting without a default. ``alias`` is a second variable for it. A
    ``secret`` never appears in messages, and can be read from a file. A sidecar limits a setting to ``sidecar_max``.
    """

    help: str
    unit: str
    min: float = 0
    max: float = 0
    unset: str | None = None
    alias: str | None = None
    secret: bool = False
    sidecar_max: int | None = None
    name: str = ""
    type: Any = str
    default: Any = None

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The possible values, if there are few."""
        kinds = (self.type, *get_args(self.type))  # the type itself, or the members of a union with None
        return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())

    @property
    def default_text(self) -> str:
        """The default in readable form or, without one, the behaviour."""
        return (self.unset or "") if self.default is None else self.written(self.default)

    def written(self, value: Any) -> str:
        """Return a value in readable form, without a secret."""
        match value:
            case Path():
                return str(value).replace(str(Path.home()), "~")
            case timedelta():
                return duration.written(value)
            case float():
                return duration.written(timedelta(seconds=value))
            case str() if self.secret:
                return without_password(value) if "://" in value else "(secret)"
            case _:
                return str(value)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one process. Names that end in ``_s`` are in seconds."""

    database_url: Annotated[
        str | None,
        Setting(
            "Address of the database (postgresql://…), or of a daemon or sidecar (https://…, unix:///…)",
            "URL",
            unset="the embedded server",
            alias="DATABASE_URL",
            secret=True,
        ),
    ] = None
    direct_url: Annotated[
        str | None,
        Setting(
            "Address of the same database without a pooler, for LISTEN, liveness locks and the schema",
            "URL",
            unset="database_url",
            secret=True,
        ),
    ] = None
    replica_url: Annotated[
        str | None,
        Setting(
            "Address of a standby, which serves lists and searches with max_lag",
            "URL",
            unset="the primary alone",
            secret=True,
        ),
    ] = None
    token: Annotated[
        str | None, Setting("API token (coo_…) for a daemon or sidecar", "token", unset="no token", secret=True)
    ] = None
    data_dir: Annotated[Path, Setting("Directory of the embedded server's data", "dir")] = Path(
        "~/.local/share/coordinator"
    ).expanduser()
    min_connections: Annotated[
        int, Setting("Connections that the pool keeps open", "count", 1, 1000, sidecar_max=1)
    ] = 5
    max_connections: Annotated[
        int,
        Setting(
            "Maximum connections for calls; a daemon has up to eight more",
            "count",
            1,
            1000,
            alias="MAX_CONNECTIONS",
            sidecar_max=2,
        ),
    ] = 20
    connect_limit_s: Annotated[
        float, Setting("Time that a daemon or sidecar waits for its first connection", "duration", 0, 86_400)
    ] = 60.0
    max_connection_age_s: Annotated[
        float,
        Setting(
            "Age at which a connection is replaced, between calls; up to a fifth earlier",
            "duration",
            1,
            2_592_000,
        ),
    ] = 3600.0
    call_timeout_s: Annotated[float, Setting("Time after which a call fails", "duration", 0.1, 3600)] = 10.0
    statement_cache_size: Annotated[
        int, Setting("Prepared statements cached for each connection; 0 disables the cache", "count", 0, 10_000)
    ] = 100
    schema: Annotated[
        Literal["apply", "verify"], Setting("What the daemon does with the schema when it starts", "choice")
    ] = "apply"
    host: Annotated[str, Setting("Address on which the daemon serves HTTP", "address")] = "127.0.0.1"
    port: Annotated[int, Setting("Port on which the daemon serves HTTP; 0 takes any free port", "port", 0, 65_535)] = (
        7420
    )
    access: Annotated[
        Literal["auto", "open", "tokens"],
        Setting("Whether HTTP needs a token; auto: no for the embedded server on loopback, otherwise yes", "choice"),
    ] = "auto"
    hosts: Annotated[
        str | None,
        Setting(
            "Other names of the daemon in Host and Origin headers, separated by commas",
            "names",
            unset="localhost only",
        ),
    ] = None
    origins: Annotated[
        str | None,
        Setting(
            "Origins whose web pages may use HTTP (CORS), https://…, separated by commas", "names", unset="no others"
        ),
    ] = None
    trusted_proxies: Annotated[
        str | None,
        Setting(
            "Networks of the reverse proxies whose X-Forwarded-For names the client, 10.1.0.0/16, separated by commas",
            "networks",
            unset="the peer is the client",
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        Setting("PEM file of the certificate and its chain; read again when it changes", "file", unset="plain HTTP"),
    ] = None
    tls_key: Annotated[Path | None, Setting("PEM file of the certificate's key", "file", unset="plain HTTP")] = None
    http_connections: Annotated[
        int,
        Setting(
            "Maximum of open connections, including idle ones; the next one gets 503",
            "count",
            1,
            1_000_000,
            sidecar_max=2000,
        ),
    ] = 21_000
    http_head_bytes: Annotated[
        int, Setting("Maximum size of a request's head; beyond: 431", "bytes", 1 << 10, 1 << 20)
    ] = 32 << 10
    http_head_s: Annotated[
        float, Setting("Time limit to receive a request's head; beyond: 408", "duration", 0.1, 3600)
    ] = 10.0
    http_body_bytes: Annotated[
        int,
        Setting(
            "Maximum size of a request's body, except of many jobs (job_batch_bytes); beyond: 413",
            "bytes",
            1 << 10,
            64 << 20,
        ),
    ] = 1 << 20
    http_body_s: Annotated[
        float, Setting("Time limit to receive a request's body; beyond: 408", "duration", 0.1, 3600)
    ] = 60.0
    http_keep_alive_s: Annotated[
        float,
        Setting("Time for which an idle connection stays open; clients close theirs after 60 s", "duration", 61, 3600),
    ] = 75.0
    http_queue: Annotated[
        int,
        Setting("Maximum of requests that wait for one of max_connections; the next one gets 503", "count", 0, 100_000),
    ] = 1000
    http_queue_s: Annotated[
        float, Setting("Maximum wait of a request for one of max_connections; beyond: 503", "duration", 0.01, 60)
    ] = 2.0
    http_memory_bytes: Annotated[
        int,
        Setting(
            "Large bodies, pages and responses in memory; as much again for streams. Requests beyond wait http_queue_s",
            "bytes",
            8 << 20,
            64 << 30,
            sidecar_max=16 << 20,
        ),
    ] = 48 << 20
    http_streams: Annotated[
        int,
        Setting(
            "Maximum of open streams and long-polls; the next one gets 503", "count", 1, 1_000_000, sidecar_max=1000
        ),
    ] = 20_000
    mcp_listeners: Annotated[
        int,
        Setting(
            "Requests that listen to resources over MCP, half of them for one token; the next one gets 503",
            "count",
            1,
            100_000,
            sidecar_max=100,
        ),
    ] = 1000
    http_wait_s: Annotated[float, Setting("Longest long-poll; beyond: 422", "duration", 0.1, 3600)] = 60.0
    http_heartbeat_s: Annotated[
        float,
        Setting(
            "Time without events after which a stream sends a comment; clients disconnect after 45 s", "duration", 1, 30
        ),
    ] = 15.0
    http_write_deadline_s: Annotated[
        float, Setting("Time without reading after which a stream is closed", "duration", 0.1, 3600)
    ] = 30.0
    http_buffer_bytes: Annotated[
        int,
        Setting(
            "Data buffered for a stream; beyond, it continues from the ring or the log", "bytes", 1 << 10, 16 << 20
        ),
    ] = 64 << 10
    http_page: Annotated[int, Setting("Events read from the log in one call", "count", 1, LIMITS["page"])] = 500
    http_log_readers: Annotated[
        int,
        Setting(
            "Streams that read the log at the same time, each on one of max_connections",
            "count",
            1,
            1000,
            sidecar_max=1,
        ),
    ] = 4
    http_ring_events: Annotated[
        int, Setting("Newest events kept in memory for streams", "count", 1, 10_000_000, sidecar_max=5000)
    ] = 20_000
    http_ring_bytes: Annotated[
        int,
        Setting(
            "Bytes of the newest events kept in memory for streams", "bytes", 1 << 10, 4 << 30, sidecar_max=4 << 20
        ),
    ] = 16 << 20
    http_topics: Annotated[
        int, Setting("Topics of a subscription, and its projects; beyond: 422", "count", 1, LIMITS["list"])
    ] = 100
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Setting("Format of log lines; auto: console on a terminal, json otherwise", "choice"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting("Lowest level of log lines to write", "choice"),
    ] = "info"
    slow_call_s: Annotated[
        float,
        Setting("Log calls of SQL functions that take longer than this; 0: all", "duration", 0, 3600),
    ] = 1.0
    tracing: Annotated[
        Literal["off", "on"],
        Setting(
            "Whether to send spans to an OpenTelemetry collector, set with OTEL_… variables; see tracing.md",
            "choice",
        ),
    ] = "off"
    traceparent: Annotated[
        str | None,
        Setting(
            "Trace (W3C traceparent) that the calls of a command belong to",
            "traceparent",
            unset="none",
            alias="TRACEPARENT",
        ),
    ] = None
    event_retention: Annotated[timedelta, Setting("Age at which events are pruned", "duration", 1, YEAR_S)] = timedelta(
        days=7
    )
    directive_retention: Annotated[
        timedelta, Setting("Time after which ended directives are pruned", "duration", 1, YEAR_S)
    ] = timedelta(days=30)
    job_completed_retention: Annotated[
        timedelta,
        Setting("Time after which completed jobs are pruned, in whole days", "duration", 1, YEAR_S),
    ] = timedelta(days=7)
    job_retention: Annotated[
        timedelta, Setting("Time after which other ended jobs are pruned, in whole days", "duration", 1, YEAR_S)
    ] = timedelta(days=30)
    job_archive: Annotated[
        Path | None,
        Setting(
            "Directory for copies of ended jobs, as compressed JSON lines, written before they are pruned",
            "dir",
            unset="no archive",
        ),
    ] = None
    artifact_store: Annotated[
        str | None,
        Setting(
            "Object store for the contents of artifacts, s3://bucket/prefix; set the rest with AWS_… variables",
            "URL",
            unset="the database",
        ),
    ] = None
    backup_dir: Annotated[
        Path | None, Setting("Directory of backups", "dir", unset="the directory backups in data_dir")
    ] = None
    pg_bin_dir: Annotated[
        Path | None,
        Setting(
            "Directory with pg_dump and pg_restore", "dir", unset="the embedded ones, the system's, or those in PATH"
        ),
    ] = None
    webhook_networks: Annotated[
        str | None,
        Setting(
            "Networks that webhooks may reach besides public addresses, 10.0.0.0/8, separated by commas; or all",
            "networks",
            unset="public addresses only",
        ),
    ] = None
    history_retention_days: Annotated[
        int | None,
        Setting(
            "Age in days at which observations are removed, in projects without a policy of their own",
            "days",
            1,
            36_525,
            unset="as retention set says",
        ),
    ] = None
    history_max_entries: Annotated[
        int | None,
        Setting(
            "Newest observations of an agent that are kept, in projects without a policy of their own",
            "count",
            1,
            LIMITS["retention_count"],
            unset="as retention set says",
        ),
    ] = None
    database_max_bytes: Annotated[
        int | None,
        Setting(
            "Maximum size of the database; coordinator doctor warns before it is reached",
            "bytes",
            1 << 20,
            10**15,
            unset="the disk of the embedded server; no limit otherwise",
        ),
    ] = None
    idempotency_retention: Annotated[
        timedelta, Setting("Time for which the response to an Idempotency-Key is kept", "duration", 1, YEAR_S)
    ] = timedelta(days=1)
    project: Annotated[str, Setting("Project", "name")] = DEFAULT_PROJECT
    actor: Annotated[str | None, Setting("Name that events record as the actor", "name", unset="the database role")] = (
        None
    )
    agent_id: Annotated[
        str | None,
        Setting(
            "Id or name of the agent that a command acts as, if it has no --agent; lock run sets it",
            "agent",
            unset="no agent",
        ),
    ] = None
    root: Annotated[
        Path | None,
        Setting(
            "Directory that paths of locks on the command line are relative to",
            "dir",
            unset="the git work tree; without one, paths as written",
        ),
    ] = None
    worktrees: Annotated[
        Literal["separate", "shared"] | None,
        Setting(
            "Whether linked work trees of a repository are separate scopes for hooks",
            "choice",
            unset="coordinator.worktrees in the repository's configuration, otherwise separate",
        ),
    ] = None
    process: Annotated[
        str | None,
        Setting("Process with which the sessions of hooks end; agent run sets it", "id", unset="none"),
    ] = None
    lock_owner: Annotated[
        str | None,
        Setting(
            "Owner, below the agent, as which a command acquires locks; lock run sets it", "owner", unset="the agent"
        ),
    ] = None
    agent: Annotated[str | None, Setting("Name of the sidecar's agent", "name", unset="name of the pod")] = None
    role: Annotated[str | None, Setting("Role of the sidecar's agent", "role", unset="no role")] = None
    listen: Annotated[
        str, Setting("Address on loopback on which the sidecar serves HTTP; none: only the socket", "address")
    ] = "127.0.0.1:7421"
    socket: Annotated[
        Path | None, Setting("Unix socket on which the sidecar serves HTTP", "path", unset="no socket")
    ] = None
    pod_name: Annotated[
        str | None,
        Setting("The sidecar's pod, from the downward API", "name", unset="no pod", alias="POD_NAME"),
    ] = None
    pod_namespace: Annotated[
        str | None, Setting("Namespace of the pod", "name", unset="no pod", alias="POD_NAMESPACE")
    ] = None
    pod_labels: Annotated[Path, Setting("File with the labels of the pod", "file")] = Path("/etc/podinfo/labels")
    output: Annotated[
        Literal["auto", "text", "json"], Setting("Output format; auto: text on a terminal, json otherwise", "choice")
    ] = "auto"

    @property
    def backups(self) -> Path:
        """The directory of backups."""
        return self.backup_dir or self.data_dir / "backups"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the daemon in addition to localhost."""
        return tuple(name.strip() for name in (self.hosts or "").split(",") if name.strip())


def _declared() -> dict[str, Setting]:
    defaults = Config()
    return {
        name: msgspec.structs.replace(
            hint.__metadata__[0], name=name, type=hint.__origin__, default=getattr(defaults, name)
        )
        for name, hint in Config.__annotations__.items()
    }


SETTINGS: Mapping[str, Setting] = _declared()
