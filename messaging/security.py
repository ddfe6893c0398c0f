"""FastStream's words for the security that `names.client_options` states in aiokafka's."""

from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from messaging.names import tls_context
from messaging.settings import KafkaSettings


def faststream_security(settings: KafkaSettings) -> BaseSecurity | None:
    context = tls_context(settings)
    if not settings.kafka_security.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=True) if context else None
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[settings.kafka_sasl_mechanism](
        username=settings.kafka_username,
        password=settings.kafka_password.get_secret_value(),
        ssl_context=context,
        use_ssl=context is not None,
    )
