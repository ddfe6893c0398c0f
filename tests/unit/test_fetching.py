"""The bytes of fetch requests are those that Kafka's own table asks for; answers are read as aiokafka reads them."""

from io import BytesIO

from aiokafka.protocol.fetch import FetchRequest_v7, FetchResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from messaging.fetching import Fetch, Part, _Response7

TOPICS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=30)
PARTITIONS = st.integers(0, 500)
OFFSETS = st.integers(0, 2**62)
VERSIONS = {1: (4, 17)}


@given(TOPICS, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.dictionaries(PARTITIONS, OFFSETS, max_size=20))
def test_a_request_is_what_aiokafka_would_have_written(
    topic: str, session: int, epoch: int, offsets: dict[int, int]
) -> None:
    forgotten = {partition + 1000 for partition in offsets if partition % 2}
    ours = Fetch(topic, session, epoch, offsets, forgotten, wait_ms=500).prepare({1: (4, 7)})
    asked = [(topic, [(partition, offset, -1, 1024 * 1024) for partition, offset in offsets.items()])]
    left = [(topic, list(forgotten))]
    theirs = FetchRequest_v7(
        -1, 500, 1, 50 * 1024 * 1024, 0, session, epoch, asked if offsets else [], left if forgotten else []
    )
    assert ours.encode() == theirs.encode()
    assert (ours.API_KEY, ours.API_VERSION) == (theirs.API_KEY, theirs.API_VERSION)


def test_the_version_is_one_that_the_broker_speaks() -> None:
    assert Fetch("t", 0, 0, {0: 1}, wait_ms=1).prepare(VERSIONS).API_VERSION == 7


@given(
    st.integers(0, 80),
    st.integers(0, 2**31 - 1),
    st.lists(
        st.tuples(
            PARTITIONS,
            st.integers(0, 80),
            OFFSETS,
            OFFSETS,
            OFFSETS,
            st.none() | st.lists(st.tuples(OFFSETS, OFFSETS), max_size=3),
            st.none() | st.binary(max_size=50),
        ),
        max_size=8,
    ),
)
def test_an_answer_is_read_like_aiokafka_reads_it(error: int, session: int, parts: list[tuple[int, ...]]) -> None:
    answer = FetchResponse_v7(0, error, session, [("a topic", parts), ("another", [])])
    read = _Response7.decode(BytesIO(answer.encode()))
    assert (read.error, read.session) == (error, session)
    assert read.parts == [Part(part[0], part[1], part[-1] or b"") for part in parts]
