"""Admission: how many events a second one consumer takes from Kafka and puts on record."""

from ground import (
    Figure,
    Ground,
    Site,
    accept,
    connected,
    cpu_of,
    new_request,
    relaying,
    requested_event,
    running,
    until,
)

from messaging.sender import Outgoing, Sender
from schemas import topics
from schemas.words import Lane

FIGURES = {
    "admits, of requests accepted here": Figure("/s", 10_000, most=False),
    "admits, of requests accepted here, consumer's CPU": Figure("us"),
    "admits, of requests accepted here, Postgres' CPU": Figure("us"),
    "admits, of requests by another service": Figure("/s", 10_000, most=False),
    "admits, of requests by another service, consumer's CPU": Figure("us"),
    "admits, of requests by another service, Postgres' CPU": Figure("us"),
}
_SO_FAR = "(SELECT count(*) FROM image_generations WHERE admitted_at IS NOT NULL)"
_RATE = """
SELECT count(*) FILTER (WHERE admitted_at > first)::float8 / extract(epoch FROM max(admitted_at) - min(admitted_at))
FROM image_generations, (SELECT min(admitted_at) AS first FROM image_generations) f
"""


async def measure(ground: Ground, *, count: int) -> dict[str, float]:
    """A backlog of `count` events in one topic, read by a consumer that has no slot to give away."""
    found: dict[str, float] = {}
    async with ground.site() as site:
        async with site.database() as database, connected(site) as connection:
            await accept(database, count)
            async with relaying(site):
                await until(connection, "SELECT NOT EXISTS (SELECT FROM outbox)")
        found |= await _admitted(site, "admits, of requests accepted here", count)
    async with ground.site() as site:
        await _publish(site, count)
        found |= await _admitted(site, "admits, of requests by another service", count)
    return found


async def _publish(site: Site, count: int) -> None:
    sender, topic = Sender(site.kafka), topics.requested(Lane.STANDARD)
    try:
        for first in range(0, count, 1_000):
            asked = [new_request(number) for number in range(first, min(first + 1_000, count))]
            await sender.send([Outgoing(topic, str(new.record_id), requested_event(new)) for new in asked])
    finally:
        await sender.discard()


async def _admitted(site: Site, name: str, count: int) -> dict[str, float]:
    """Admissions a second, by Postgres' clock, from the end of the first to the end of the last; CPU for each."""
    # its one slot is given away at once and stays so; nothing is swept in that has not come by its event
    provider = site.process("provider", "bench.provider", ["--latency", "100000"], "/stats")
    consumer = site.process(
        "consumer",
        "consumer",
        MODELSLAB_BASE_URL=provider.http_url,
        SCENEWIRE_PROVIDER_SLOTS="1",
        SCENEWIRE_ADMIT_AFTER="100000",
    )
    async with connected(site) as connection:
        with running(provider):
            try:
                consumer.launch()
                await until(connection, f"SELECT {_SO_FAR} > 0")
                left = count - await connection.fetchval(f"SELECT {_SO_FAR}")
                before = cpu_of(consumer, site.postgres)
                # seldom: counting them all is work for the same Postgres
                await until(connection, f"SELECT {_SO_FAR} = $1", count, every=0.5)
                costs = [now - then for now, then in zip(cpu_of(consumer, site.postgres), before, strict=True)]
            finally:
                # an open submit would be waited for
                consumer.kill()
        return {
            name: float(await connection.fetchval(_RATE)),
            f"{name}, consumer's CPU": costs[0] / left * 1e6,
            f"{name}, Postgres' CPU": costs[1] / left * 1e6,
        }
