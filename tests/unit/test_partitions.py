"""A key goes to the partition that every other producer of Kafka's would choose for it."""

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given
from hypothesis import strategies as st

from messaging.partitions import murmur2, partition_of


@given(st.binary(max_size=100))
def test_a_key_has_the_hash_that_it_has_everywhere(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_aiokafka(key)


@given(st.binary(max_size=40), st.integers(1, 50))
def test_a_key_goes_to_the_partition_of_the_default_partitioner(key: bytes, count: int) -> None:
    partitions = list(range(count))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, partitions, partitions)


def test_without_a_key_any_partition_will_do() -> None:
    assert {partition_of(None, [0, 1, 2]) for _ in range(200)} == {0, 1, 2}
