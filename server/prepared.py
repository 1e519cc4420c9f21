"""Statements of SQLAlchemy's Core that are compiled once and run by the driver itself.

What a Core statement costs beyond the database's work is most of a small one: some 50 to 100 µs
against 5. A prepared one is written in Core, so it is spelled once for every database, and takes
and gives values as Core would.
"""

from collections import namedtuple
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import BindParameter, Executable, bindparam
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError

from server.db import Connection

Row = tuple[Any, ...]
Process = Callable[[Any], Any]


class Prepared:
    """A statement whose named `bindparam`s are given with each run.

    For an INSERT, `columns` are those it gives values to, by their names.
    """

    def __init__(self, statement: Executable, *columns: str) -> None:
        self._statement = statement
        self._columns = columns or None
        self._compiled: dict[str, _Compiled] = {}

    def all(self, conn: Connection, **values: Any) -> list[Row]:
        """All rows, as plain tuples, in the connection's transaction where there is one."""
        return self._run(conn, values)[0]

    def first(self, conn: Connection, **values: Any) -> Row | None:
        rows = self.all(conn, **values)
        return rows[0] if rows else None

    def scalar(self, conn: Connection, **values: Any) -> Any:
        """The first column of the first row; None when there is none."""
        rows = self.all(conn, **values)
        return rows[0][0] if rows else None

    def rows(self, conn: Connection, **values: Any) -> list[Any]:
        """All rows, with their columns as attributes."""
        make = self._find_compiled(conn.dialect).row
        return [make(row) for row in self.all(conn, **values)] if make else []

    def row(self, conn: Connection, **values: Any) -> Any:
        """The first row, with its columns as attributes; None when there is none."""
        rows = self.rows(conn, **values)
        return rows[0] if rows else None

    def run(self, conn: Connection, **values: Any) -> int:
        """How many rows it changed."""
        return self._run(conn, values)[1]

    def _run(self, conn: Connection, values: dict[str, Any]) -> tuple[list[Row], int]:
        compiled = self._find_compiled(conn.dialect)
        # With no cursor kept open, no lock and no snapshot is held either.
        cursor = conn.connection.cursor()
        try:
            cursor.execute(compiled.sql, compiled.bind(values))
            rows = list(cursor.fetchall()) if compiled.row is not None else []
            return compiled.read(rows), int(cursor.rowcount)
        except conn.dialect.loaded_dbapi.Error as error:
            raise _wrap(error, compiled.sql, conn.dialect) from error
        finally:
            cursor.close()

    def _find_compiled(self, dialect: Dialect) -> "_Compiled":
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = _Compiled(self._statement, self._columns, dialect)
            found = self._compiled.setdefault(dialect.name, compiled)
        return found


class PreparedIn:
    """A statement with one list of values in it: prepared for each power of two of them.

    `build` writes it with the parameters that stand for the values; the last one stands for those
    that are too few, so a list has to be a set: in an IN, not in a VALUES.
    """

    def __init__(self, build: Callable[[Sequence[BindParameter[Any]]], Executable]) -> None:
        self._build = build
        self._prepared: dict[int, Prepared] = {}

    def all(self, conn: Connection, listed: Collection[Any], **values: Any) -> list[Row]:
        """None for an empty list; at most some 16,000 values, as databases have it."""
        return self._find(listed).all(conn, **_name(listed), **values) if listed else []

    def rows(self, conn: Connection, listed: Collection[Any], **values: Any) -> list[Any]:
        return self._find(listed).rows(conn, **_name(listed), **values) if listed else []

    def _find(self, listed: Collection[Any]) -> Prepared:
        size = _round_up(len(listed))
        found = self._prepared.get(size)
        if found is None:
            places: list[BindParameter[Any]] = [bindparam(f"listed_{at}") for at in range(size)]
            found = self._prepared.setdefault(size, Prepared(self._build(places)))
        return found


def _round_up(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _name(listed: Collection[Any]) -> dict[str, Any]:
    values = list(listed)
    values += values[-1:] * (_round_up(len(values)) - len(values))
    return {f"listed_{at}": value for at, value in enumerate(values)}


class _Compiled:
    def __init__(self, statement: Any, columns: Sequence[str] | None, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        if compiled.positiontup is None:
            raise NotImplementedError(f"{dialect.driver} takes no parameters by position")
        # An IN of a list gets its length only when it runs: spell out what never changes.
        if "POSTCOMPILE" in str(compiled):
            raise NotImplementedError(f"cannot be prepared: {compiled}")
        self.sql = str(compiled)
        self._order = [
            (name, _is_asked(compiled, name), compiled.params[name], _binder(compiled, name))
            for name in compiled.positiontup
        ]
        found = getattr(statement, "selected_columns", None)
        found = list(getattr(statement, "exported_columns", ()) if found is None else found)
        self._readers = [
            (position, read)
            for position, column in enumerate(found)
            if (read := _reader(column.type, dialect)) is not None
        ]
        names = [column.key for column in found]
        self.row = _shape(names) if names else None

    def bind(self, values: dict[str, Any]) -> tuple[Any, ...]:
        bound = [
            (process(value) if process else value)
            for name, is_asked, fixed, process in self._order
            for value in ((values[name] if is_asked else fixed),)
        ]
        return tuple(bound)

    def read(self, rows: list[Row]) -> list[Row]:
        if not self._readers:
            return rows
        read_rows = []
        for row in rows:
            values = list(row)
            for position, read in self._readers:
                values[position] = read(values[position])
            read_rows.append(tuple(values))
        return read_rows


def _shape(names: Sequence[str]) -> Callable[[Row], Any]:
    shape: Any = namedtuple("row", names, rename=True)  # type: ignore[misc]
    make: Callable[[Row], Any] = shape._make
    return make


def _is_asked(compiled: Any, name: str) -> bool:
    """Whether each run must give it; the others are constants of the statement."""
    return bool(compiled.binds[name].required)


def _binder(compiled: Any, name: str) -> Process | None:
    process: Process | None
    kind = compiled.binds[name].type.dialect_impl(compiled.dialect)
    process = kind.bind_processor(compiled.dialect)
    return process


def _reader(type_: Any, dialect: Dialect) -> Process | None:
    reader: Process | None = type_.dialect_impl(dialect).result_processor(dialect, None)
    return reader


def _wrap(error: Any, sql: str, dialect: Dialect) -> Exception:
    """As Core raises it, so that callers need not know how a statement was run."""
    base = dialect.loaded_dbapi.Error
    wrapped: Any = DBAPIError.instance(
        sql, None, error, base, hide_parameters=True, dialect=dialect
    )
    assert isinstance(wrapped, Exception)  # noqa: S101 (only others are passed on unchanged)
    return wrapped
