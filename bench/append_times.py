"""When Kafka appended an event, said by Kafka itself."""

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from ground import Site

from messaging.names import real_topic
from schemas.topics import STATUS


async def append_times(site: Site) -> None:
    """Let Kafka note of each status event when it was appended, in place of when it was sent."""
    admin = AIOKafkaAdminClient(bootstrap_servers=site.kafka_servers)
    await admin.start()
    try:
        name, configs = real_topic(site.kafka, STATUS), {"message.timestamp.type": "LogAppendTime"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs)])
    finally:
        await admin.close()
