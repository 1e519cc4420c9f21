"""Backup and restore: the database first, then the objects, which were there before their rows.

A backup is a data directory again: `hub.db`, `repo.git`, `admin.key` and a note of what it is.
Archives are the same in a tar.
"""

import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from server.db import Database, sqlite_url
from server.operator.files import copy_database, copy_repo, find_hub, link_or_copy
from server.operator.fsck import Report, check
from server.operator.meter import Meter
from server.operator.target import Refused, building, building_file

#: How a tar of this name is written.
MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz"}
NOTE = "backup.json"
_KEY = "admin.key"
# A commit that lacks an object was pushed to or repacked in a way we did not foresee: look again.
_TRIES = 3


def backup(data: Path, target: Path, meter: Meter, now: datetime) -> Report:
    """Copy a hub, running or not, to a new folder or a new archive; raise Refused."""
    data = find_hub(data)
    target = target.absolute()
    mode = next((mode for end, mode in MODES.items() if target.name.endswith(end)), None)
    if target.resolve().is_relative_to(data):
        raise Refused("a backup inside the data directory would be lost with it")
    if mode is None:
        with building(target) as work:
            return _copy(data, work, meter, _copy_file, now)
    with building_file(target) as work:
        copy = work / "hub"
        copy.mkdir()
        report = _copy(data, copy, meter, link_or_copy, now)
        _pack(copy, work / target.name, mode, meter)
    return report


def restore(source: Path, target: Path, meter: Meter) -> Report:
    """Make a data directory of a backup, or of a plain copy of one; raise Refused."""
    target = target.absolute()
    if not source.exists():
        raise Refused(f"there is no {source}")
    with building(target) as work:
        if source.is_dir():
            return _restore(find_hub(source), work, meter)
        unpacked = work / "unpacked"
        _unpack(source, unpacked, meter)
        report = _restore(find_hub(unpacked), work, meter, link_or_copy)
        shutil.rmtree(unpacked)
    return report


def _copy(
    data: Path, work: Path, meter: Meter, place: Callable[[Path, Path], object], now: datetime
) -> Report:
    meter.start("copy")
    copy_database(data / "hub.db", work / "hub.db", is_live=True)
    _copy_key(data, work)
    for _ in range(_TRIES):
        copy_repo(data / "repo.git", work / "repo.git", place)
        report = check(work, meter)
        if not any(finding.code in ("object", "unkept") for finding in report.problems):
            break
    note = {"format": 1, "created_at": now.isoformat(), "commits": report.commits}
    (work / NOTE).write_text(json.dumps(note) + "\n")
    return report


def _restore(
    source: Path, work: Path, meter: Meter, place: Callable[[Path, Path], object] | None = None
) -> Report:
    meter.start("copy")
    copy_database(source / "hub.db", work / "hub.db", is_live=False)
    db = Database(sqlite_url(work / "hub.db"))
    db.migrate()
    db.close()
    _copy_key(source, work)
    copy_repo(source / "repo.git", work / "repo.git", place or _copy_file)
    return check(work, meter)


def _copy_key(source: Path, target: Path) -> None:
    """None is there when the key is given to the hub each time."""
    if (source / _KEY).is_file():
        key = os.open(target / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(key, "wb") as out:
            out.write((source / _KEY).read_bytes())


def _copy_file(source: Path, target: Path) -> None:
    """Under a name of its own first, so that no half file counts as copied."""
    draft = target.with_name(f".{target.name}")
    shutil.copyfile(source, draft)
    draft.chmod(stat.S_IMODE(source.stat().st_mode) & 0o755)
    draft.rename(target)


def _pack(folder: Path, out: Path, mode: str, meter: Meter) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    meter.start("archive", len(files))
    handle = os.open(out, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as raw, tarfile.open(fileobj=raw, mode=mode) as tar:  # type: ignore[call-overload]
        for path in files:
            tar.add(path, path.relative_to(folder).as_posix(), filter=_nameless)
            meter.advance()


def _nameless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine it was made on."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _unpack(archive: Path, folder: Path, meter: Meter) -> None:
    folder.mkdir(mode=0o700)
    meter.start("unpack")
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                # A backup has nothing else, and a link could lead out of the folder.
                if not (member.isfile() or member.isdir()):
                    raise Refused(f"{archive} is no backup: {member.name!r} is not a plain file")
                tar.extract(member, folder, filter="data")
                meter.advance()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Refused(f"{archive} cannot be unpacked: {error}", "is it a backup, whole?") from error
