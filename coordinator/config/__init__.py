"""Settings: the only place that reads the environment.

A setting comes from the first of: a flag of the command line, the environment, the profile, the default. An empty
variable counts as none. Profiles are in ``coordinator.yaml``, which is the file of ``--config`` or COORDINATOR_CONFIG, or else
the first of ``./coordinator.yaml`` and ``~/.config/coordinator/coordinator.yaml``; ``--profile``, COORDINATOR_PROFILE or the file's
own ``profile`` chooses one. A setting marked * may be read from a file: ``database_url_file`` in a profile,
COORDINATOR_DATABASE_URL_FILE. A ``direct_url`` counts only beside a ``database_url`` that is not nearer to the caller: they
belong together.

| setting              | environment                               | default                     | unit     | meaning                                            |
|----------------------|-------------------------------------------|-----------------------------|----------|----------------------------------------------------|
| database_url *       | COORDINATOR_DATABASE_URL, DATABASE_URL    | none: the embedded server   | URL      | the database, postgresql://…; of all but the daemon also a daemon or sidecar, https://… or unix:///… |
| direct_url *         | COORDINATOR_DIRECT_URL                    | database_url                | URL      | the same past any pooler: LISTEN, locks, schema    |
| token *              | COORDINATOR_TOKEN                         | none: without               | text     | what opens the daemon at such an address, coo_…    |
| data_dir             | COORDINATOR_DATA_DIR                      | ~/.local/share/coordinator  | path     | where the embedded server keeps its data           |
| min_connections      | COORDINATOR_MIN_CONNECTIONS               | 5                           | count    | the pool keeps so many; at most max_connections    |
| max_connections      | COORDINATOR_MAX_CONNECTIONS, MAX_CONNECTIONS | 20                       | count    | the pool opens so many                             |
| connect_limit_s      | COORDINATOR_CONNECT_LIMIT_S               | 60                          | duration | daemon, sidecar: wait so long for a first connection |
| call_timeout_s       | COORDINATOR_CALL_TIMEOUT_S                | 30                          | duration | a call to the database is given up after           |
| statement_cache_size | COORDINATOR_STATEMENT_CACHE_SIZE          | 100                         | count    | prepared statements of a connection; 0: none       |
| schema               | COORDINATOR_SCHEMA                        | apply                       | choice   | at start: apply the schema, or only verify it      |
| host                 | COORDINATOR_HOST                          | 127.0.0.1                   | address  | where HTTP listens                                 |
| port                 | COORDINATOR_PORT                          | 7420                        | port     | where HTTP listens; 0: any that is free            |
| access               | COORDINATOR_ACCESS                        | auto                        | choice   | tokens, open (loopback only), or auto: open for the embedded server on loopback |
| hosts                | COORDINATOR_HOSTS                         | none: localhost             | names    | of this daemon, with commas, that Host and Origin may have |
| origins              | COORDINATOR_ORIGINS                       | none: no CORS               | names    | https://…, with commas: pages of these may use HTTP from another origin |
| tls_certificate      | COORDINATOR_TLS_CERTIFICATE               | none: plain HTTP            | path     | PEM file of the certificate with its chain; taken anew when it changes |
| tls_key              | COORDINATOR_TLS_KEY                       | none: plain HTTP            | path     | PEM file of its key                                |
| http_connections     | COORDINATOR_HTTP_CONNECTIONS              | 21000                       | count    | connections at once, idle ones included; beyond: 503; a sidecar: 2000 at the most |
| http_head_bytes      | COORDINATOR_HTTP_HEAD_BYTES               | 32768                       | bytes    | of a request's head; beyond: 431                   |
| http_head_s          | COORDINATOR_HTTP_HEAD_S                   | 10                          | duration | a request's head comes within; beyond: 408         |
| http_body_bytes      | COORDINATOR_HTTP_BODY_BYTES               | 1048576                     | bytes    | of a request's body; beyond: 413                   |
| http_body_s          | COORDINATOR_HTTP_BODY_S                   | 60                          | duration | a request's body comes within; beyond: 408         |
| http_keep_alive_s    | COORDINATOR_HTTP_KEEP_ALIVE_S             | 75                          | duration | a connection is kept so long between two requests  |
| http_queue           | COORDINATOR_HTTP_QUEUE                    | 1000                        | count    | requests that wait for one of max_connections; beyond: 503 |
| http_queue_s         | COORDINATOR_HTTP_QUEUE_S                  | 2                           | duration | a request waits so long for one; beyond: 503       |
| http_streams         | COORDINATOR_HTTP_STREAMS                  | 20000                       | count    | streams and long-polls at once; beyond: 503; a sidecar: 1000 at the most |
| http_wait_s          | COORDINATOR_HTTP_WAIT_S                   | 60                          | duration | longest long-poll; beyond: 422                     |
| http_heartbeat_s     | COORDINATOR_HTTP_HEARTBEAT_S              | 15                          | duration | a stream without events gets a sign of life so often |
| http_write_deadline_s | COORDINATOR_HTTP_WRITE_DEADLINE_S         | 30                          | duration | a stream that takes nothing for so long is closed  |
| http_buffer_bytes    | COORDINATOR_HTTP_BUFFER_BYTES             | 65536                       | bytes    | written ahead of a stream's reader; beyond, it goes on from the ring or the log |
| http_page            | COORDINATOR_HTTP_PAGE                     | 500                         | count    | events that are read from the log at once          |
| http_log_readers     | COORDINATOR_HTTP_LOG_READERS              | 4                           | count    | streams that read the log at once, each on one of max_connections; a sidecar: 1 |
| http_ring_events     | COORDINATOR_HTTP_RING_EVENTS              | 20000                       | count    | the newest events, kept ready for streams; a sidecar: 5000 at the most |
| http_ring_bytes      | COORDINATOR_HTTP_RING_BYTES               | 16777216                    | bytes    | the same in bytes; a sidecar: 4 MiB at the most    |
| http_topics          | COORDINATOR_HTTP_TOPICS                   | 100                         | count    | topics of a subscription, and projects; beyond: 422 |
| log_format           | COORDINATOR_LOG_FORMAT                    | auto                        | choice   | json, console, or auto: console on a terminal      |
| log_level            | COORDINATOR_LOG_LEVEL                     | info                        | choice   | debug, info, warning, error                        |
| event_retention      | COORDINATOR_EVENT_RETENTION               | 7d                          | duration | events are pruned after                            |
| directive_retention  | COORDINATOR_DIRECTIVE_RETENTION           | 30d                         | duration | directives are pruned so long after their end      |
| idempotency_retention | COORDINATOR_IDEMPOTENCY_RETENTION         | 1d                          | duration | the answer to an Idempotency-Key is kept so long   |
| project              | COORDINATOR_PROJECT                       | default                     | name     | the command line's project                         |
| actor                | COORDINATOR_ACTOR                         | none: the database's role   | name     | who does it, in events                             |
| agent                | COORDINATOR_AGENT                         | none: pod_name              | name     | the sidecar's agent                                |
| role                 | COORDINATOR_ROLE                          | none: of no role            | name     | role of the sidecar's agent                        |
| listen               | COORDINATOR_LISTEN                        | 127.0.0.1:7421              | address  | where the sidecar listens, on loopback; or none    |
| socket               | COORDINATOR_SOCKET                        | none: without               | path     | unix socket that the sidecar listens on            |
| pod_name             | COORDINATOR_POD_NAME, POD_NAME            | none: no pod                | name     | the sidecar's pod, as the downward API tells it    |
| pod_namespace        | COORDINATOR_POD_NAMESPACE, POD_NAMESPACE  | none: no pod                | name     | namespace of the pod                               |
| pod_labels           | COORDINATOR_POD_LABELS                    | /etc/podinfo/labels         | path     | file with the labels of the pod                    |
| output               | COORDINATOR_OUTPUT                        | auto                        | choice   | text, json, or auto: text on a terminal            |

COORDINATOR_DEBUG=1 shows where a bug is. Durations are written 30s, 5m, 1h30m, 7d; a plain number is seconds.

Every malformed value raises ``ConfigurationError``, which names where the value came from, before any connection is made, and
never repeats a secret. What is deliberately absent: settings that change while the program runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, get_type_hints

from coordinator.config.environment import from_environment
from coordinator.config.profile import from_profile
from coordinator.config.settings import ADDRESSES, PREFIX, Config
from coordinator.config.tls import check_files
from coordinator.config.value import Given, convert
from coordinator.errors import ConfigurationError
from coordinator.model import address
from coordinator.model.token import SECRET

__all__ = ["Config", "debugging", "load", "output_form"]


def debugging(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether COORDINATOR_DEBUG asks for stack traces."""
    return environment.get(f"{PREFIX}DEBUG", "") not in ("", "0")


def output_form(environment: Mapping[str, str] = os.environ) -> str:
    """Tell the form in which to report errors where the settings themselves may be wrong."""
    form = environment.get(f"{PREFIX}OUTPUT", "")
    return form if form in ("text", "json") else "auto"


def load(
    *,
    profile: str | None = None,
    file: str | None = None,
    flags: Mapping[str, tuple[str, str]] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Put the settings together. ``flags`` has, by setting, the flag's spelling and its value.

    Raises: ``ConfigurationError``.
    """
    given = from_profile(profile, file, environment)
    given |= from_environment(environment)
    given |= {name: Given(value, spelling, 0) for name, (spelling, value) in (flags or {}).items()}
    hints = get_type_hints(Config)
    values = {name: convert(name, hints[name], one) for name, one in given.items()}
    if "token" in values and not SECRET.fullmatch(values["token"]):
        raise ConfigurationError(
            f"{given['token'].origin} is no token", hint='It is coo_…; see "coordinator token create".'
        )
    for name in ADDRESSES & values.keys():
        try:
            if name == "database_url" and address.is_gateway(values[name]):
                address.check_gateway(values[name])
            else:
                check_files(address.check(values[name], environment))
        except address.AddressError as error:
            raise ConfigurationError(f"{given[name].origin} {error}", hint=error.hint) from None
    # An address past the pooler of another database than the one that the caller named would be worse than none.
    if "direct_url" in given:
        if "database_url" not in given:
            raise ConfigurationError(
                f"{given['direct_url'].origin} is set, but no database_url",
                hint="Set COORDINATOR_DATABASE_URL, too.",
            )
        if given["direct_url"].level > given["database_url"].level:
            del values["direct_url"]
    _fit_pool(values, given)
    return Config(**values)


def _fit_pool(values: dict[str, Any], given: Mapping[str, Given]) -> None:
    defaults = Config()
    most = values.get("max_connections", defaults.max_connections)
    if "min_connections" not in values:
        values["min_connections"] = min(defaults.min_connections, most)
    elif values["min_connections"] > most:
        raise ConfigurationError(
            f"{given['min_connections'].origin} is {values['min_connections']}, more than max_connections, {most}",
            hint="Lower it, or raise max_connections.",
        )
