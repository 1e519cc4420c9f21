"""What is kept of a function's results, and how much."""

from server.kept import kept


def test_results_are_kept_by_bytes_the_last_used_ones() -> None:
    made: list[int] = []

    @kept(100, len)
    def make(size: int) -> bytes:
        made.append(size)
        return bytes(size)

    for size in (40, 50, 40):
        assert len(make(size)) == size
    assert made == [40, 50]
    # No room for three: the one that was not used for longest goes.
    make(30)
    make(40)
    assert made == [40, 50, 30]
    make(50)
    assert made == [40, 50, 30, 50]


def test_what_is_larger_than_all_room_is_made_each_time_and_displaces_nothing() -> None:
    made: list[int] = []

    @kept(100, len)
    def make(size: int) -> bytes:
        made.append(size)
        return bytes(size)

    for size in (60, 101, 101, 60):
        make(size)
    assert made == [60, 101, 101]


def test_texts_that_were_asked_with_count_too() -> None:
    made: list[str] = []

    @kept(1000, len)
    def make(text: str) -> bytes:
        made.append(text)
        return b""

    texts = ["a" * 700, "b" * 700]
    for text in texts * 2:
        make(text)
    assert made == texts * 2
