"""Stand-in text of the shape of climbmix, from what lies on this machine: no network needed.

Scores on it compare variants on one machine and nothing else: the text is whatever is installed.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

SHARDS = 8
VAL_SHARDS = (6542, 6541)  # public, private
VAL_PERCENT = 4  # of the text, for each of them
MIN_CHARS, MAX_CHARS = 500, 60_000
SUFFIXES = {".py", ".md", ".rst", ".txt", ".html", ".h", ".hpp", ".c", ".js", ".pyi"}
ROOTS = (Path(sys.base_prefix), Path(sys.prefix), Path("/usr/share"), Path("/usr/include"))


def write_shards(folder: Path) -> int:
    """Write shards as prepare.py downloads them, the split decided by content; return the bytes."""
    import pyarrow
    from pyarrow import parquet

    shards: dict[int, list[str]] = {index: [] for index in (*range(SHARDS), *VAL_SHARDS)}
    for text in _texts():
        number = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        side = number % 100 // VAL_PERCENT
        is_val = side < len(VAL_SHARDS)
        shards[VAL_SHARDS[side] if is_val else number // 100 % SHARDS].append(text)
    folder.mkdir(parents=True, exist_ok=True)
    for index, texts in shards.items():
        # In the order of a hash, as climbmix is shuffled.
        texts.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
        table = pyarrow.table({"text": texts})
        parquet.write_table(table, folder / f"shard_{index:05d}.parquet", row_group_size=1024)
    return sum(len(text.encode()) for texts in shards.values() for text in texts)


def _texts() -> Iterator[str]:
    seen: set[bytes] = set()
    for path in sorted({path.resolve() for root in ROOTS for path in _files(root)}):
        try:
            text = path.read_text("utf-8")[:MAX_CHARS]
        except (OSError, UnicodeDecodeError):
            continue
        digest = hashlib.sha256(text[:2000].encode()).digest()
        if len(text) >= MIN_CHARS and digest not in seen:
            seen.add(digest)
            yield text


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.suffix in SUFFIXES and path.is_file():
            yield path
