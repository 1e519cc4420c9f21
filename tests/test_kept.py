"""What is kept of what was made, and how much."""

from server.kept import Room, Shelf, kept


def test_results_are_kept_by_bytes_the_last_used_ones() -> None:
    made: list[int] = []

    @kept(len, Room(10_000))
    def make(size: int) -> bytes:
        made.append(size)
        return bytes(size)

    for size in (4000, 4500, 4000):
        assert len(make(size)) == size
    assert made == [4000, 4500]
    # No room for three: the one that was not used for longest goes.
    make(3000)
    make(4000)
    assert made == [4000, 4500, 3000]
    make(4500)
    assert made == [4000, 4500, 3000, 4500]


def test_what_takes_more_than_two_thirds_is_made_each_time_and_displaces_nothing() -> None:
    made: list[int] = []

    @kept(len, Room(10_000))
    def make(size: int) -> bytes:
        made.append(size)
        return bytes(size)

    for size in (3000, 6400, 6400, 3000):
        make(size)
    assert made == [3000, 6400, 6400]


def test_texts_that_were_asked_with_count_too() -> None:
    made: list[str] = []

    @kept(len, Room(10_000))
    def make(text: str) -> bytes:
        made.append(text)
        return b""

    texts = ["a" * 3000, "b" * 3000, "c" * 3000]
    for text in texts * 2:
        make(text)
    assert made == texts * 2


def test_shelves_share_the_room_and_know_their_own_keys_only() -> None:
    room = Room(10_000)
    one, other = Shelf[str, bytes](len, room), Shelf[str, bytes](len, room)
    one.put("key", b"1" * 4000)
    other.put("key", b"2" * 4000)
    assert (one.get("key"), other.get("key")) == (b"1" * 4000, b"2" * 4000)
    assert 8000 <= room.bytes <= 10_000
    # `one` was asked for first, so it goes, wherever the new one lies.
    other.put("another key", b"3" * 4000)
    assert (one.get("key"), other.get("key")) == (None, b"2" * 4000)


def test_a_result_that_became_too_large_does_not_stay_as_it_was() -> None:
    room = Room(10_000)
    shelf = Shelf[str, bytes](len, room)
    shelf.put("key", b"old")
    shelf.put("key", b"new" * 3000)
    assert (shelf.get("key"), room.bytes) == (None, 0)
