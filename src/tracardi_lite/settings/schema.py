"""Every setting of the program, declared once: key, environment names, default, unit, bounds, meaning.

The loader, ``tracardi-lite settings``, the docs page and the error messages are made from this. Names are
Tracardi's where one exists. Keys in a TOML file are the attribute names; 0 means what the text says, never "default".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct


class Option(Struct, frozen=True, kw_only=True):
    """What a setting's type can't say."""

    text: str
    env: tuple[str, ...] = ()
    """Environment names, the first one ours to document; () means the upper-cased key."""
    unit: str = ""
    ge: float | None = None
    le: float | None = None
    secret: bool = False
    flag: str = ""
    """Its flag on ``serve``, where it has one."""


Partitioning = Literal["year", "quarter", "month", "day"]
LogLevel = Literal["debug", "info", "warning", "error"]


DEFAULT_MERGING_SECRET = "s>a.d-kljsa87^5adh"  # noqa: S105  # the original's, printed in its manuals
"""What merge keys are hashed with where nobody has chosen a secret."""


class Settings(Struct, frozen=True, kw_only=True):
    # --- process ---
    role: Annotated[
        Literal["all", "api", "worker"],
        Option(env=("TRACARDI_LITE_ROLE",), flag="--role", text="Which half runs."),
    ] = "all"
    host: Annotated[str, Option(env=("TRACARDI_LITE_HOST",), flag="--host", text="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int,
        Option(
            env=("TRACARDI_LITE_PORT",),
            flag="--port",
            ge=0,
            le=65535,
            text="Port to listen on; 0 picks a free one.",
        ),
    ] = 8686
    worker_port: Annotated[
        int,
        Option(
            env=("TRACARDI_LITE_WORKER_PORT",),
            ge=0,
            le=65535,
            text="Port where a worker-only process answers health and metrics; when it is taken, a free one is used.",
        ),
    ] = 8687
    reuse_port: Annotated[
        bool,
        Option(
            env=("TRACARDI_LITE_REUSE_PORT",),
            flag="--reuse-port",
            text="Share the port with other processes of this program; the kernel spreads connections over them.",
        ),
    ] = False
    data_dir: Annotated[
        Path,
        Option(
            env=("TRACARDI_LITE_DATA_DIR",),
            flag="--data-dir",
            text="Where the embedded backends keep their files.",
        ),
    ] = Path("tracardi-lite-data")
    shutdown_timeout: Annotated[
        float,
        Option(unit="s", ge=1, le=3600, text="After SIGTERM: time to finish requests, drain, flush and close."),
    ] = 30.0
    shutdown_delay: Annotated[
        float,
        Option(
            unit="s",
            ge=0,
            le=300,
            text="After SIGTERM: how long readiness is false before the port closes, for load balancers. 0: at once.",
        ),
    ] = 0.0
    logging_level: Annotated[
        LogLevel, Option(env=("LOGGING_LEVEL", "TRACARDI_LOGGING_LEVEL"), text="Least level that is logged.")
    ] = "warning"
    logging_format: Annotated[
        Literal["auto", "json", "console"],
        Option(text="Log lines for programs or people; auto: people on a terminal."),
    ] = "auto"
    production: Annotated[bool, Option(text="Records belong to the production context (index prefix ``prod-``).")] = (
        False
    )
    tenant_name: Annotated[str, Option(text="Tenant in index and partition names.")] = "8504a"

    # --- backends ---
    queue_url: Annotated[
        str, Option(text="Queue backend: sqlite:, memory:, pulsar:, redis:, or a third party's scheme.")
    ] = "sqlite:"
    store_url: Annotated[str, Option(text="Store backend: sqlite:, memory:, elasticsearch:, …")] = "sqlite:"
    cache_url: Annotated[
        str,
        Option(
            text="Cache backend: local: (processes that share the data directory), memory: (one process), redis:, …. "
            "Beside a store that is not in the data directory: memory:, unless Redis is named."
        ),
    ] = "local:"
    registry_url: Annotated[str, Option(secret=True, text="Registry backend: sqlite:, mysql:, …")] = "sqlite:"

    wait_for_dependencies: Annotated[
        float,
        Option(
            unit="s",
            ge=0,
            le=3600,
            text="Longest that a start or `install` waits for its servers, all together; then it fails. 0: not.",
        ),
    ] = 60.0

    # --- Elasticsearch ---
    elastic_host: Annotated[
        str,
        Option(
            text="Elasticsearch's nodes: host, host:port or http(s)://host:port, separated by commas. Naming one makes "
            "it the store, unless store_url says otherwise."
        ),
    ] = ""
    elastic_scheme: Annotated[Literal["http", "https"], Option(text="For nodes that are named without one.")] = "http"
    elastic_port: Annotated[int, Option(ge=1, le=65535, text="For nodes that are named without one.")] = 9200
    elastic_http_auth_username: Annotated[str, Option(text="User; acts where there is a password.")] = "elastic"
    elastic_http_auth_password: Annotated[str, Option(secret=True, text="Its password; empty: no basic auth.")] = ""
    elastic_api_key: Annotated[
        str, Option(secret=True, text="API key, as Elasticsearch encodes it, or its secret part where the id is given.")
    ] = ""
    elastic_api_key_id: Annotated[str, Option(text="The API key's id, where elastic_api_key is the secret part.")] = ""
    elastic_cloud_id: Annotated[str, Option(text="Elastic Cloud's id of a deployment; takes the place of hosts.")] = ""
    elastic_ca_file: Annotated[str, Option(text="Certificates to trust, PEM; empty: the system's.")] = ""
    elastic_verify_certs: Annotated[bool, Option(text="no: take any certificate. For trials only.")] = True
    elastic_max_conn: Annotated[int, Option(ge=1, le=1000, text="Connections to each node.")] = 25
    elastic_http_compress: Annotated[
        bool, Option(text="gzip requests and answers: less traffic for more CPU, for nodes that are far away.")
    ] = False
    elastic_query_timeout: Annotated[float, Option(unit="s", ge=1, le=600, text="Longest wait for an answer.")] = 12.0
    elastic_bulks_max: Annotated[
        int, Option(ge=1, le=64, text="Most bulk requests of a process in flight; fewer while Elasticsearch says 429.")
    ] = 8
    elastic_index_shards: Annotated[
        int, Option(ge=1, le=1024, text="Primary shards of a partition; a change acts on partitions made after it.")
    ] = 3
    elastic_index_replicas: Annotated[
        int, Option(ge=0, le=20, text="Copies of each shard in new partitions; 0 where there is one data node.")
    ] = 1
    elastic_snapshots: Annotated[
        str,
        Option(
            text="Where snapshots go: fs:/a/folder/below/path.repo or s3://bucket/path (credentials are in the nodes' "
            "keystore); empty: nowhere."
        ),
    ] = ""

    # --- Pulsar ---
    pulsar_host: Annotated[
        str,
        Option(
            text="Pulsar's brokers: pulsar://host:6650 or pulsar+ssl://host:6651, further hosts after commas. Naming "
            "one makes it the queue, unless queue_url says otherwise."
        ),
    ] = ""
    pulsar_api: Annotated[
        str, Option(text="Its admin REST API: http://host:8080; empty: port 8080 (TLS: 8443) of the first broker.")
    ] = ""
    pulsar_auth_token: Annotated[str, Option(secret=True, text="Token (JWT) for both; empty: none.")] = ""
    pulsar_cluster: Annotated[str, Option(text="Name of the cluster that a new tenant may use.")] = "standalone"
    pulsar_tenant: Annotated[str, Option(text="Tenant of the topics.")] = "tracardi"
    pulsar_system_namespace: Annotated[str, Option(text="Namespace of the topics.")] = "system"
    pulsar_function_topic: Annotated[str, Option(text="The partitioned topic of the messages.")] = "functions"
    pulsar_ca_file: Annotated[str, Option(text="Certificates to trust, PEM; empty: the system's.")] = ""
    pulsar_verify_certs: Annotated[bool, Option(text="no: take any certificate. For trials only.")] = True
    pulsar_message_ttl: Annotated[
        int,
        Option(unit="s", ge=0, text="After this long Pulsar drops a message that nobody worked on. 0: never."),
    ] = 30 * 86400
    pulsar_offload_threshold: Annotated[
        int,
        Option(unit="bytes", ge=-1, text="A topic larger than this moves to cold storage, if there is any. -1: off."),
    ] = -1
    pulsar_offload_deletion_lag: Annotated[
        int, Option(unit="s", ge=0, text="How long what was moved stays in hot storage as well.")
    ] = 4 * 3600

    # --- Redis ---
    redis_host: Annotated[
        str,
        Option(
            text="Redis: host, host:port, redis://host:port or rediss:// for TLS. Naming one makes it the cache, "
            "unless cache_url says otherwise."
        ),
    ] = ""
    redis_port: Annotated[int, Option(ge=1, le=65535, text="For a host that is named without one.")] = 6379
    redis_username: Annotated[str, Option(text="User; empty: Redis's default one.")] = ""
    redis_password: Annotated[str, Option(secret=True, text="Its password; empty: none.")] = ""
    redis_db: Annotated[int, Option(ge=0, le=1023, text="Number of the database.")] = 0
    redis_tls: Annotated[bool, Option(text="Speak TLS, also to a host that is named without rediss://.")] = False
    redis_ca_file: Annotated[str, Option(text="Certificates to trust, PEM; empty: the system's.")] = ""
    redis_verify_certs: Annotated[bool, Option(text="no: take any certificate. For trials only.")] = True
    redis_prefix: Annotated[str, Option(text="Begins every key of ours, so that a Redis can be shared.")] = (
        "tracardi-lite"
    )
    redis_timeout: Annotated[
        float, Option(unit="s", ge=0.01, le=10, text="Longest the cache waits for Redis before it goes on without it.")
    ] = 0.1

    # --- MySQL ---
    mysql_host: Annotated[
        str,
        Option(
            text="MySQL or MariaDB: host or host:port. Naming one makes it the registry, unless registry_url says "
            "otherwise."
        ),
    ] = ""
    mysql_port: Annotated[int, Option(ge=1, le=65535, text="For a host that is named without one.")] = 3306
    mysql_username: Annotated[str, Option(text="User.")] = "root"
    mysql_password: Annotated[str, Option(secret=True, text="Its password; empty: none.")] = ""
    mysql_database: Annotated[str, Option(text="Database; it has to be there.")] = "tracardi"
    mysql_tls: Annotated[bool, Option(text="Speak TLS; with mysql_ca_file this is understood.")] = False
    mysql_ca_file: Annotated[str, Option(text="Certificates to trust, PEM; empty: the system's.")] = ""
    mysql_verify_certs: Annotated[bool, Option(text="no: take any certificate. For trials only.")] = True
    mysql_pool_size: Annotated[
        int,
        Option(
            env=("MYSQL_POOL_SIZE", "MYSQL_CONNECTION__POOL"), ge=2, le=100, text="Connections that a process keeps."
        ),
    ] = 5
    mysql_pool_max_overflow: Annotated[
        int,
        Option(
            env=("MYSQL_POOL_MAX_OVERFLOW", "MYSQL_MAX_OVERFLOW"), ge=0, le=100, text="Further ones while all are busy."
        ),
    ] = 2
    mysql_pool_timeout: Annotated[
        float,
        Option(
            env=("MYSQL_POOL_TIMEOUT", "MYSQL_TIMEOUT"), unit="s", ge=0.1, le=60, text="Longest wait for a free one."
        ),
    ] = 3.0
    mysql_pool_recycle: Annotated[
        int,
        Option(
            env=("MYSQL_POOL_RECYCLE", "MYSQL_RECYCLE"),
            unit="s",
            ge=1,
            text="A connection older than this is replaced; less than the server's wait_timeout.",
        ),
    ] = 1800

    # --- the collector ---
    body_max: Annotated[
        int,
        Option(unit="bytes", ge=1024, le=1 << 30, text="Largest request body, decompressed; more is 413."),
    ] = 10 * 1024 * 1024
    event_max: Annotated[
        int,
        Option(unit="bytes", ge=256, le=1 << 30, text="Largest single event; more is reported in errors."),
    ] = 512 * 1024
    events_per_call_max: Annotated[
        int, Option(unit="events", ge=1, le=1_000_000, text="Most events in one call; more is 413.")
    ] = 10_000
    in_flight_max: Annotated[
        int,
        Option(unit="bytes", ge=1 << 20, text="Bodies taken and not yet durable; more is 503 with Retry-After."),
    ] = 64 * 1024 * 1024
    request_timeout: Annotated[
        float, Option(unit="s", ge=1, le=600, text="Longest a client may take to send its body; then 408.")
    ] = 30.0
    enable_event_source_check: Annotated[
        bool, Option(text="no: accept any source id as an open REST source, channel Web.")
    ] = True
    source_cache_ttl: Annotated[
        float,
        Option(
            unit="s",
            ge=0,
            le=3600,
            text="How long a changed event source may take to act. 0: asked each time.",
        ),
    ] = 2.0
    disallow_bot_traffic: Annotated[bool, Option(text="Refuse user agents that say they are bots with 401.")] = True
    use_x_forwarded_ip: Annotated[
        str, Option(text="Name of the header to trust for the client's IP; empty: the socket's peer.")
    ] = ""
    track_debug: Annotated[bool, Option(text="Let options.debugger list the event ids in the answer.")] = False
    system_events: Annotated[bool, Option(text="Add profile-created, session-opened and visit-started events.")] = True
    keep_profile_in_cache_for: Annotated[
        int, Option(unit="s", ge=0, text="How long the shared cache keeps a profile's directory entry.")
    ] = 3600
    keep_session_in_cache_for: Annotated[
        int, Option(unit="s", ge=0, text="How long the shared cache keeps a session's directory entry.")
    ] = 1800
    directory_cache_size: Annotated[
        int, Option(unit="entries", ge=100, text="Directory entries kept in each process, of some 400 bytes each.")
    ] = 20_000
    tracker_dir: Annotated[str, Option(text="A directory to serve at /tracker/; empty: none.")] = ""

    # --- queue ---
    queue_partitions: Annotated[
        int,
        Option(
            ge=1,
            le=256,
            text="Partitions of the topic, fixed when it is made; bounds how many workers share it.",
        ),
    ] = 8
    queue_retention: Annotated[
        int, Option(unit="s", ge=0, text="How long acknowledged messages are kept for replay. 0: not at all.")
    ] = 30 * 86400
    queue_retention_bytes: Annotated[
        int, Option(unit="bytes", ge=0, text="How much of them is kept; the older go first. 0: nothing.")
    ] = 1 << 30
    queue_bytes_max: Annotated[
        int, Option(unit="bytes", ge=1 << 20, text="Most disk the queue may use, backlog included; then 503.")
    ] = 20 << 30
    disk_free_min: Annotated[
        int,
        Option(unit="bytes", ge=0, text="Disk space to leave free; below it 503 before the disk is full."),
    ] = 256 << 20
    lease_ttl: Annotated[
        float, Option(unit="s", ge=1, le=300, text="A worker that is silent this long loses its partitions.")
    ] = 10.0

    # --- workers ---
    workers: Annotated[
        int, Option(ge=1, le=64, text="Lanes of the pool in one process; a profile stays in one lane.")
    ] = 4
    bulk_size: Annotated[int, Option(unit="events", ge=1, le=100_000, text="Flush when this many events wait.")] = 500
    bulk_timeout: Annotated[
        float, Option(unit="s", ge=0.01, le=3600, text="Flush this long after the first event at the latest.")
    ] = 30.0
    bulk_idle: Annotated[
        float, Option(unit="s", ge=0, le=3600, text="Flush when nothing new came for this long. 0: off.")
    ] = 1.0
    bulk_bytes: Annotated[int, Option(unit="bytes", ge=1024, text="Flush when the batch holds this much.")] = (
        8 * 1024 * 1024
    )
    max_tries: Annotated[
        int, Option(ge=1, le=100, text="Tries for a message that fails by itself; then the dead letters.")
    ] = 5
    retry_delay: Annotated[
        float, Option(unit="s", ge=0.01, le=3600, text="First pause before a retry; doubles, with jitter.")
    ] = 0.5
    retry_delay_max: Annotated[float, Option(unit="s", ge=0.01, le=3600, text="Longest pause between retries.")] = 30.0
    close_visit_after: Annotated[
        int, Option(unit="s", ge=1, text="A visit is over after this long without an event.")
    ] = 1200
    enable_event_validation: Annotated[bool, Option(text="Let validation rules act.")] = True
    enable_event_reshaping: Annotated[bool, Option(text="Let reshaping rules act.")] = True
    enable_event_mapping: Annotated[
        bool, Option(text="Let mapping and to-profile rules act. The predefined event types are mapped all the same.")
    ] = True
    enable_identification_point: Annotated[bool, Option(text="Let identification rules act.")] = True
    rules_cache_ttl: Annotated[
        float,
        Option(
            env=(
                "RULES_CACHE_TTL",
                "EVENT_VALIDATION_CACHE_TTL",
                "EVENT_METADATA_CACHE_TTL",
                "EVENT_TO_PROFILE_COPY_CACHE_TTL",
                "DATA_COMPLIANCE_CACHE_TTL",
            ),
            unit="s",
            ge=0,
            le=3600,
            text="How long a changed rule may take to act, on any process. All kinds are read together: set one of "
            "these names. 0: 0.2 s.",
        ),
    ] = 2.0
    event_types_file: Annotated[
        str, Option(text="JSON or TOML file of event types that join or replace the predefined ones; empty: none.")
    ] = ""

    # --- identity ---
    apm: Annotated[bool, Option(text="Merge profiles that share a merge key. no: never.")] = True
    auto_profile_merging: Annotated[
        str,
        Option(
            secret=True,
            text="Secret that merge keys are hashed with, at least 20 characters; fixed at install. The default is "
            "known to everybody and only for the embedded backends.",
        ),
    ] = DEFAULT_MERGING_SECRET
    identification_event_property: Annotated[
        str,
        Option(text="Profile fields that are merge keys, by path or prefix (``emm-``), separated by commas."),
    ] = (
        "data.identifier.pk,data.identifier.id,data.contact.email.main,data.contact.email.business,"
        "data.contact.email.private,data.contact.phone.main,data.contact.phone.business,data.contact.phone.mobile,"
        "data.contact.phone.whatsapp"
    )
    identification_point_type: Annotated[
        Literal["any", "restricted", "anonymous"],
        Option(
            text="any: any event that gives a profile a merge key identifies it. restricted: only those of "
            "identification_event_type. anonymous: the same, and then all profiles with the key are merged, however "
            "they came by it."
        ),
    ] = "any"
    identification_event_type: Annotated[
        str, Option(text="Event types that identify, separated by commas; acts with identification_point_type.")
    ] = ""
    primary_id: Annotated[
        str, Option(text="Profile field that primary_id follows, by path or by the prefix of a merge key (``emm-``).")
    ] = "data.identifier.pk"
    primary_id_as_hash: Annotated[bool, Option(text="primary_id is the field's merge key instead of its value.")] = (
        False
    )
    merge_strategies: Annotated[
        str,
        Option(
            text="How fields of merged profiles become one, where the defaults (docs/merging.md) don't suit: "
            "``data.pii=FIRST_UPDATE, traits.score=MAX``."
        ),
    ] = ""

    # --- partitions of the store (fixed at install) ---
    event_partitioning: Annotated[Partitioning, Option(text="Period of an event partition; fixed at install.")] = (
        "month"
    )
    profile_partitioning: Annotated[Partitioning, Option(text="Period of a profile partition; fixed at install.")] = (
        "quarter"
    )
    session_partitioning: Annotated[Partitioning, Option(text="Period of a session partition; fixed at install.")] = (
        "quarter"
    )
    log_partitioning: Annotated[Partitioning, Option(text="Period of a log partition; fixed at install.")] = "month"

    # --- retention of the store's partitions ---
    retention_every: Annotated[
        int,
        Option(unit="s", ge=0, text="How often a worker, one of all, makes, moves and drops partitions. 0: never."),
    ] = 3600
    retention_event: Annotated[
        int, Option(unit="s", ge=0, text="Event partitions are dropped this long after their end. 0: kept for ever.")
    ] = 0
    retention_session: Annotated[
        int,
        Option(
            unit="s",
            ge=0,
            text="Session partitions, too. 0: kept for ever. Profiles are, always: somebody who first came years ago "
            "may be back today.",
        ),
    ] = 0
    retention_warm_after: Annotated[
        int,
        Option(
            unit="s",
            ge=0,
            text="Partitions move to warm nodes this long after their end, which has to be longer than any backlog "
            "lasts. 0: never.",
        ),
    ] = 0
    retention_cold_after: Annotated[int, Option(unit="s", ge=0, text="And to cold ones. 0: never.")] = 0
    retention_read_only: Annotated[bool, Option(text="Event partitions that move take no writes any more.")] = True
    retention_merge: Annotated[bool, Option(text="Event partitions that move are merged to one segment.")] = True
    retention_replicas: Annotated[
        int, Option(ge=-1, le=20, text="Copies of each shard of a partition that has moved. -1: as before.")
    ] = -1
    retention_snapshot: Annotated[
        bool,
        Option(
            text="Drop a partition only after a good snapshot of it, where the store makes some (elastic_snapshots)."
        ),
    ] = True

    # --- admin ---
    expose_gui_api: Annotated[bool, Option(text="no: the collector only; admin routes answer 403.")] = True
    token_ttl: Annotated[int, Option(unit="s", ge=60, text="A token's life, counted again from each use.")] = 1800
    installation_token: Annotated[str, Option(secret=True, text="Needed to install over HTTP (POST /install).")] = ""
    metrics_public: Annotated[bool, Option(text="no: /metrics needs an admin token.")] = True
