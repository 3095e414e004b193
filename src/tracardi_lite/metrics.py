"""Every metric of the program, declared once, with cheap instruments and the Prometheus text of it all.

A ``Metrics`` object is made in ``app.py`` and passed to whoever counts. Counting is an addition to an int: no locks
(one event loop), no registry look-ups. Names, kinds, units, labels and meanings are the annotations of ``Metrics``
and ``LEDGER``; docs/metrics.md is made from them.

Instruments count for this process since its start. The ledger and the backlog come from the queue: they are the
installation's, the same whichever process is asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Protocol, get_args, get_type_hints

from msgspec import Struct

from tracardi_lite.ledger import Ledger, QueueTotals, ledger_of

PREFIX = "tracardi_lite_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what ``render`` returns: the Prometheus text format."""

LABEL_SETS_MAX = 500
"""Per metric. Further ones are counted together as ``other``, so that no client can grow the page."""


class Metric(Struct, frozen=True):
    """What an instrument's type can't say."""

    name: str
    """Without the prefix; counters end in ``_total``, others in their unit where they have one."""
    text: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """A histogram's upper bounds, inclusive, growing; +Inf is added."""


class Counter:
    """Only grows. ``counter.value += 1`` is fine."""

    __slots__ = ("value",)
    kind = "counter"

    def __init__(self, _: Metric) -> None:
        self.value = 0

    def add(self, count: int = 1) -> None:
        self.value += count


class CounterBy:
    """A counter per set of label values; they are given in the order in which the metric declares its labels."""

    __slots__ = ("_other", "values")
    kind = "counter"

    def __init__(self, metric: Metric) -> None:
        self.values: dict[tuple[str, ...], int] = {}
        self._other = ("other",) * len(metric.labels)

    def add(self, *labels: str, count: int = 1) -> None:
        values = self.values
        if labels in values:
            values[labels] += count
            return
        if len(labels) != len(self._other):
            raise ValueError(f"{len(self._other)} labels are declared, got {labels}")
        key = labels if len(values) < LABEL_SETS_MAX else self._other
        values[key] = values.get(key, 0) + count


class Gauge:
    """Goes up and down: ``gauge.value += n``."""

    __slots__ = ("value",)
    kind = "gauge"

    def __init__(self, _: Metric) -> None:
        self.value: float = 0


class GaugeBy:
    """A gauge per set of label values; bounded by who sets it (lanes, partitions)."""

    __slots__ = ("values",)
    kind = "gauge"

    def __init__(self, _: Metric) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def set(self, *labels: str, value: float) -> None:
        self.values[labels] = value


class Reading:
    """A gauge that is asked when it is rendered. Not on the page until ``read`` is set, or while it answers None."""

    __slots__ = ("read",)
    kind = "gauge"

    def __init__(self, _: Metric) -> None:
        self.read: Callable[[], float | None] = lambda: None


class Histogram:
    """How often values fell under which bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")
    kind = "histogram"

    def __init__(self, metric: Metric) -> None:
        assert metric.bounds, metric.name
        assert list(metric.bounds) == sorted(set(metric.bounds)), metric.name
        self.bounds = metric.bounds
        self.counts = [0] * (len(metric.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_EVENTS = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)


class Metrics:
    """One of each; made once per process."""

    requests: Annotated[
        CounterBy,
        Metric(
            "requests_total",
            "Requests answered. route: the route's name, not the path; status: its class, such as 2xx.",
            labels=("route", "status"),
        ),
    ]
    request_seconds: Annotated[
        Histogram,
        Metric("request_seconds", "Time from a request's head to its answer.", unit="seconds", bounds=_FAST_S),
    ]
    unavailable: Annotated[
        CounterBy,
        Metric("unavailable_total", "Requests answered with 503, by the part that was full or away.", labels=("part",)),
    ]
    in_flight_bytes: Annotated[
        Gauge, Metric("in_flight_bytes", "Bodies taken and not yet durable; bounded by in_flight_max.", unit="bytes")
    ]
    publish_seconds: Annotated[
        Histogram,
        Metric(
            "publish_seconds", "Time until the queue said that a message is durable.", unit="seconds", bounds=_FAST_S
        ),
    ]
    flushes: Annotated[
        CounterBy,
        Metric(
            "flushes_total",
            "Batches flushed to the store. reason: full, timeout, idle, bytes or shutdown; mostly full means that "
            "workers are short, mostly idle that they have time.",
            labels=("reason",),
        ),
    ]
    flush_events: Annotated[Histogram, Metric("flush_events", "Events in a flush.", unit="events", bounds=_EVENTS)]
    flush_seconds: Annotated[
        Histogram, Metric("flush_seconds", "Time for a flush, retries included.", unit="seconds", bounds=_SLOW_S)
    ]
    verdicts: Annotated[
        CounterBy,
        Metric(
            "store_verdicts_total",
            "Items written to the store. kind: event, profile or session; outcome: stored, same, exists, conflict, "
            "retry or never.",
            labels=("kind", "outcome"),
        ),
    ]
    retries: Annotated[Counter, Metric("retries_total", "Pauses before something was tried again.")]
    profile_conflicts: Annotated[
        Counter,
        Metric("profile_conflicts_total", "Profiles that had changed since they were read, and were applied anew."),
    ]
    profiles_merged: Annotated[Counter, Metric("profiles_merged_total", "Profiles that became part of another one.")]
    records_moved: Annotated[
        Counter,
        Metric("records_moved_total", "Events and sessions of merged profiles that name the survivor by now."),
    ]
    system_events_stored: Annotated[
        Counter,
        Metric("system_events_stored_total", "Events made by the server; not in the ledger, as nobody sent them."),
    ]
    events_invalid: Annotated[
        Counter, Metric("events_invalid_total", "Events stored that a validation rule has found invalid.")
    ]
    rules_active: Annotated[Gauge, Metric("rules_active", "Rules that act on this worker's events.", unit="rules")]
    rules_broken: Annotated[
        Gauge,
        Metric("rules_broken", "Stored rules that can't be obeyed and are left out; the log names them.", unit="rules"),
    ]
    rules_stale: Annotated[
        Gauge, Metric("rules_stale", "1 while the registry is away and the rules that were read last serve on.")
    ]
    lane_backlog: Annotated[
        GaugeBy,
        Metric(
            "lane_backlog", "Messages taken from the queue and waiting in a lane.", unit="messages", labels=("lane",)
        ),
    ]
    cache_hits: Annotated[
        CounterBy, Metric("cache_hits_total", "Look-ups that a cache answered, by cache.", labels=("cache",))
    ]
    cache_misses: Annotated[
        CounterBy, Metric("cache_misses_total", "Look-ups that had to go further, by cache.", labels=("cache",))
    ]
    queue_bytes: Annotated[
        Reading, Metric("queue_bytes", "Disk that the queue uses; bounded by queue_bytes_max.", unit="bytes")
    ]

    def __init__(self) -> None:
        for attribute, instrument, metric in _declared():
            setattr(self, attribute, instrument(metric))

    def render(
        self, totals: QueueTotals | None = None, backlog: Sequence[BacklogRow] = (), *, process: bool = True
    ) -> bytes:
        """The page for ``/metrics``. Without ``totals`` (the queue is away) the ledger is left out, never zero.

        ``process``: add CPU, memory and file descriptors of this process, read from /proc.
        """
        # Imported here: a worker that nobody scrapes, and every command, is some MB smaller without it.
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
        from prometheus_client.registry import Collector

        samples = [*self._samples(), *_ledger_samples(totals), *_backlog_samples(backlog)]

        class Page(Collector):
            def collect(self) -> Iterator[Any]:
                return _families(samples)

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Page())
        if process:
            ProcessCollector(registry=registry)
        return generate_latest(registry)

    def _samples(self) -> Iterator[_Sampled]:
        for attribute, _, metric in _declared():
            instrument = getattr(self, attribute)
            match instrument:
                case Counter() | Gauge():
                    yield _Sampled(metric, instrument.kind, {(): instrument.value})
                case CounterBy() | GaugeBy():
                    yield _Sampled(metric, instrument.kind, dict(instrument.values))
                case Reading():
                    if (value := instrument.read()) is not None:
                        yield _Sampled(metric, instrument.kind, {(): value})
                case Histogram():
                    yield _Sampled(metric, instrument.kind, {}, instrument)


class BacklogRow(Protocol):
    """The part of ``ports.queue.PartitionBacklog`` that is shown."""

    partition: str
    subscription: str
    messages: int
    oldest_ms: int | None


LEDGER: tuple[tuple[Metric, str, Callable[[Ledger], Mapping[tuple[str, ...], float]]], ...] = (
    (
        Metric("events_received_total", "Events that came in, refused ones included, replayed ones not."),
        "counter",
        lambda ledger: {(): ledger.received},
    ),
    (
        Metric("events_replayed_total", "Events that were made pending again: dead letters replayed, or a seek."),
        "counter",
        lambda ledger: {(): ledger.replayed},
    ),
    (Metric("events_stored_total", "Events in the store."), "counter", lambda ledger: {(): ledger.stored}),
    (
        Metric("events_duplicate_total", "Events whose id another message had already brought."),
        "counter",
        lambda ledger: {(): ledger.duplicate},
    ),
    (
        Metric(
            "events_rejected_total",
            "Events not taken: refused at the door, by reason, or not_saved, as their sender asked.",
            labels=("reason",),
        ),
        "counter",
        lambda ledger: {(reason,): count for reason, count in sorted(ledger.rejected.items())},
    ),
    (
        Metric("events_dead_lettered_total", "Events ever written to the dead letters."),
        "counter",
        lambda ledger: {(): ledger.dead_lettered},
    ),
    (Metric("events_dead", "Events in the dead letters now.", "events"), "gauge", lambda ledger: {(): ledger.dead}),
    (
        Metric("events_pending", "Events that are durable and not yet stored.", "events"),
        "gauge",
        lambda ledger: {(): ledger.pending},
    ),
)
"""The ledger's metrics: what each is, its kind, and its values by label values."""

BACKLOG_MESSAGES = Metric(
    "backlog_messages", "Messages not yet acknowledged.", "messages", ("partition", "subscription")
)
BACKLOG_OLDEST = Metric(
    "backlog_oldest_timestamp_seconds",
    "When the oldest of them was published, as Unix time; absent where there is none. Its age is time() minus this.",
    "seconds",
    ("partition", "subscription"),
)


class Row(Struct, frozen=True):
    """A line of docs/metrics.md."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    text: str


def table() -> list[Row]:
    """Every metric of ours, in the order of the page."""
    rows = [(metric, instrument.kind) for _, instrument, metric in _declared()]
    rows += [(metric, kind) for metric, kind, _ in LEDGER]
    rows += [(BACKLOG_MESSAGES, "gauge"), (BACKLOG_OLDEST, "gauge")]
    return [Row(PREFIX + metric.name, kind, metric.unit, metric.labels, metric.text) for metric, kind in rows]


def _declared() -> list[tuple[str, Any, Metric]]:
    """(attribute, instrument class, metric) of ``Metrics``; computed once."""
    if not _DECLARED:
        for attribute, hint in get_type_hints(Metrics, include_extras=True).items():
            instrument, metric = get_args(hint)
            _DECLARED.append((attribute, instrument, metric))
    return _DECLARED


_DECLARED: list[tuple[str, Any, Metric]] = []


class _Sampled(Struct):
    metric: Metric
    kind: str
    values: Mapping[tuple[str, ...], float]
    histogram: Histogram | None = None


def _ledger_samples(totals: QueueTotals | None) -> Iterator[_Sampled]:
    if totals is not None:
        ledger = ledger_of(totals)
        for metric, kind, read in LEDGER:
            yield _Sampled(metric, kind, read(ledger))


def _backlog_samples(backlog: Sequence[BacklogRow]) -> Iterator[_Sampled]:
    if backlog:
        yield _Sampled(BACKLOG_MESSAGES, "gauge", {(row.partition, row.subscription): row.messages for row in backlog})
        oldest: dict[tuple[str, ...], float] = {
            (row.partition, row.subscription): row.oldest_ms / 1000 for row in backlog if row.oldest_ms is not None
        }
        yield _Sampled(BACKLOG_OLDEST, "gauge", oldest)


def _families(sampled: Iterable[_Sampled]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for each in sampled:
        name, text, labels = PREFIX + each.metric.name, each.metric.text, each.metric.labels
        if each.histogram is not None:
            buckets, running = [], 0
            bounds = [*map(_bound, each.histogram.bounds), "+Inf"]
            for bound, count in zip(bounds, each.histogram.counts, strict=True):
                running += count
                buckets.append((bound, running))
            family = HistogramMetricFamily(name, text)
            family.add_metric([], buckets, each.histogram.sum)
            yield family
            continue
        scalar = (CounterMetricFamily if each.kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
        for values, value in each.values.items():
            scalar.add_metric(values, value)
        yield scalar


def _bound(bound: float) -> str:
    """As Prometheus clients write it, so that ``le`` matches theirs: always with a point."""
    return str(float(bound))
