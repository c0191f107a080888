"""A Kafka cluster for tests: the mock cluster that librdkafka brings along, in a process of its own.

It speaks the real protocol over real sockets, groups included, and can be told to refuse, to be slow and
to lose brokers. What it does not do: to de-duplicate what an idempotent producer sends again, to check
sizes of messages, TLS, SASL, and to let anybody join a group whose last member has left. It keeps the last
5 MB of a partition in memory.

Python's binding does not pass the mock's controls on, so the child calls the library itself.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from typing import Any

PRODUCE, METADATA, INIT_PRODUCER_ID = 0, 3, 22  # keys of the protocol's requests
ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
READ_S = 0.05  # for messages to gather


class KafkaCluster:
    """A running cluster.

    Attributes:
        bootstrap: ``host:port`` of its brokers, by their ids, which begin at 1.
        process: the child: stop and continue it, or kill it.
    """

    def __init__(self, brokers: int = 3) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.kafka_cluster", str(brokers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.bootstrap: list[str] = self._answer()

    def create_topic(self, name: str, partitions: int = 4) -> None:
        self._tell("rd_kafka_mock_topic_create", name, partitions, 1)

    def delete_topic(self, name: str) -> None:
        self._tell("rd_kafka_mock_topic_delete", name, result=None)

    def refuse_topic(self, name: str, code: int) -> None:
        """Answer every question about a topic with an error; 0 ends it."""
        self._tell("rd_kafka_mock_topic_set_error", name, code, result=None)

    def refuse(self, request: int, *codes: int) -> None:
        """Answer the next requests of a kind with these errors, one each, over all brokers."""
        self._tell("push", request, *codes)

    def stop_refusing(self, request: int) -> None:
        self._tell("rd_kafka_mock_clear_request_errors", request, result=None)

    def advertise(self, broker: int, port: int) -> None:
        """Let a broker tell clients another port: that of a proxy before it."""
        self._tell("rd_kafka_mock_broker_set_host_port", broker, "127.0.0.1", port)

    def down(self, broker: int) -> None:
        """Close a broker's listener and connections; it keeps what it has."""
        self._tell("rd_kafka_mock_broker_set_down", broker)

    def up(self, broker: int) -> None:
        self._tell("rd_kafka_mock_broker_set_up", broker)

    def slow(self, broker: int, rtt_ms: int) -> None:
        """Let every answer of a broker take so long."""
        self._tell("rd_kafka_mock_broker_set_rtt", broker, rtt_ms)

    def hang(self) -> None:
        """Let every broker stop in the middle of whatever it does."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def messages(self, topic: str, *, bootstrap: str | None = None) -> list[Any]:
        """Read a whole topic with a consumer that is not ours: by partition, each in its order."""
        from confluent_kafka import Consumer, KafkaError, TopicPartition

        servers = bootstrap or ",".join(self.bootstrap)
        consumer = Consumer(
            {"bootstrap.servers": servers, "group.id": "tests", "enable.partition.eof": True, "log_level": 0}
        )
        try:
            partitions = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            found: list[Any] = []
            open_ends = set(partitions)
            deadline = time.monotonic() + PATIENCE_S
            while open_ends:
                assert time.monotonic() < deadline, f"the ends of {open_ends} were not reached"
                for message in consumer.consume(1000, timeout=READ_S):
                    if (error := message.error()) is None:
                        found.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_ends.discard(message.partition())
            return sorted(found, key=lambda message: (message.partition(), message.offset()))
        finally:
            consumer.close()

    def _tell(self, function: str, *arguments: int | str, result: int | None = 0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([function, *arguments]) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        assert result is None or answer == result, f"{function}{arguments}: error {answer}"

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextmanager
def kafka_cluster(brokers: int = 3) -> Iterator[KafkaCluster]:
    """Run a cluster."""
    cluster = KafkaCluster(brokers)
    try:
        yield cluster
    finally:
        cluster.close()


# The child. ---------------------------------------------------------------------------------------


def _library() -> ctypes.CDLL:
    """Return the very library that the binding has loaded."""
    import confluent_kafka

    assert confluent_kafka.libversion()
    [path] = [path for path in files("confluent-kafka") or [] if path.name.startswith("librdkafka-")]
    library = ctypes.CDLL(str(path.locate()))
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, function).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


def _serve(brokers: int) -> None:
    library = _library()
    settings = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(settings, b"log_level", b"0", None, ctypes.c_size_t(0))
    client = ctypes.c_void_p(library.rd_kafka_new(0, settings, None, ctypes.c_size_t(0)))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(client, brokers))
    print(json.dumps(library.rd_kafka_mock_cluster_bootstraps(cluster).decode().split(",")), flush=True)
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        if function == "push":
            request, *codes = arguments
            errors = (ctypes.c_int * len(codes))(*codes)
            library.rd_kafka_mock_push_request_errors_array(
                cluster, ctypes.c_int16(request), ctypes.c_size_t(len(codes)), errors
            )
            answer = 0
        else:
            given = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
            answer = getattr(library, function)(cluster, *given)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
