"""Apache Kafka as one child process: a single KRaft node, broker and controller in one JVM."""

import shutil
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local import jars
from local.server import Command, Server, run_once

_HOST = "127.0.0.1"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
# after a kill the old session must end before the broker may come back, on a single node too: 3 s instead of 11 s
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# what is least is for whoever joins a group to say: 6 s otherwise
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
# many small topics: index files are preallocated and mapped at this size
log.index.size.max.bytes=1048576
log.segment.delete.delay.ms=1000
"""


@dataclass(eq=False)
class Kafka(Server):
    """A broker that keeps its events in `folder` and listens on loopback, on `port` (controller: `controller_port`)."""

    folder: Path = field(kw_only=True)
    port: int = field(kw_only=True)
    controller_port: int = field(kw_only=True)
    heap_mb: int = field(default=512, kw_only=True)
    #: ready in two seconds of a core, with 300 MB; otherwise as Java runs it by itself: slower to start, then faster
    quick: bool = field(default=True, kw_only=True)
    #: the file its classes are kept in (`local.preloading`), where it is there; None: the one of these jars
    classes: Path | None = field(default=None, kw_only=True)
    #: more of Java's own, for the broker alone
    options: Sequence[str] = field(default=(), kw_only=True)

    @property
    def servers(self) -> str:
        """`host:port`, as clients want it."""
        return f"{_HOST}:{self.port}"

    def prepare(self) -> None:
        data = self.folder / "data"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            _PROPERTIES.format(host=_HOST, port=self.port, controller_port=self.controller_port, data=data)
        )
        if (data / "meta.properties").exists():
            return
        shutil.rmtree(data, ignore_errors=True)  # a formatting that was interrupted
        storage = ["format", "--standalone", "--cluster-id", "c2NlbmV3aXJlLWxvY2FsMA", "--config"]
        command = Command([*self._java(), "kafka.tools.StorageTool", *storage, str(self._properties)], _ENVIRONMENT)
        run_once(command, step="Formatting Kafka's data folder")

    def command(self) -> Command:
        java, *arguments = self._java()
        broker = [java, *self.options, *arguments, "kafka.Kafka", str(self._properties)]
        return Command(broker, _ENVIRONMENT, folder=self.folder)

    def is_ready(self) -> bool:
        """Ready is: it answers a metadata request and counts itself among the brokers that clients may use."""
        try:
            with socket.create_connection((_HOST, self.port), timeout=1.0) as connection:
                return _count_brokers(connection) > 0
        except (OSError, struct.error):
            return False

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self) -> list[str]:
        tuning = [f"-Xmx{self.heap_mb}m", "-Djava.awt.headless=true"]
        if self.quick:
            # the serial collector and the first compiler tier
            tuning += ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        tuning.append("--sun-misc-unsafe-memory-access=allow")  # Kafka unmaps its index files by it; Java 25 warns
        if self.quick and (classes := self.classes or jars.preloaded()).exists():
            # a file that does not fit is no matter for the log: it is only slower without
            tuning += [f"-XX:AOTCache={classes}", "-Xlog:aot*=off,cds*=off"]
        logging = [
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
        ]
        return [str(jars.java()), *tuning, *logging, "-cp", jars.class_path()]


# Kafka's start scripts read many variables, the classes none; a caller's JAVA_TOOL_OPTIONS would change this JVM
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


def _count_brokers(connection: socket.socket) -> int:
    """Metadata request, version 1, for no topic: https://kafka.apache.org/protocol#The_Messages_Metadata."""
    api_key, version, correlation, client = 3, 1, 1, b"local"
    body = struct.pack(">hhih", api_key, version, correlation, len(client)) + client + struct.pack(">i", 0)
    connection.sendall(struct.pack(">i", len(body)) + body)
    header = connection.recv(12, socket.MSG_WAITALL)  # length, correlation id, number of brokers
    _, answered, brokers = struct.unpack(">iii", header)
    return int(brokers) if answered == correlation else 0
