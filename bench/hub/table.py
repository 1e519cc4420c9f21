"""What was measured, what was wanted, and how both are shown."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Figures:
    """Of one call at one number of connections."""

    requests: int
    seconds: float
    #: Milliseconds.
    p50: float
    p99: float
    errors: int
    bytes: int = 0
    #: Microseconds of CPU that the hub's processes took for each request.
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return (self.requests - self.errors) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """What a call shall reach at so many connections: of U, a second, or in ms at the 99 %."""

    ratio: float | None = None
    rate: float | None = None
    p99: float | None = None
    connections: int = 16

    def __str__(self) -> str:
        parts = []
        if self.ratio is not None:
            parts.append(f"≥ {self.ratio:.2f} U")
        if self.rate is not None:
            parts.append(f"≥ {self.rate:,.0f}/s")
        if self.p99 is not None:
            parts.append(f"p99 < {self.p99:g} ms")
        return ", ".join(parts)

    def is_met(self, figures: Figures, u: float) -> bool:
        return not (
            (self.ratio is not None and figures.rate < self.ratio * u)
            or (self.rate is not None and figures.rate < self.rate)
            or (self.p99 is not None and figures.p99 >= self.p99)
        )


@dataclass(slots=True)
class Row:
    commits: int
    call: str
    connections: int
    #: Requests a second of the yardstick, at 16 connections, just before and after.
    u: float
    figures: Figures
    target: Target | None = None

    @property
    def is_met(self) -> bool | None:
        """None where nothing is asked for at so many connections."""
        if self.target is None or self.target.connections != self.connections:
            return None
        return self.figures.errors == 0 and self.target.is_met(self.figures, self.u)

    def to_json(self) -> dict[str, Any]:
        return {
            "commits": self.commits,
            "call": self.call,
            "connections": self.connections,
            "u": round(self.u, 1),
            "rate": round(self.figures.rate, 1),
            "ratio": round(self.figures.rate / self.u, 4),
            "target": str(self.target) if self.is_met is not None else None,
            "is_met": self.is_met,
            **{key: round(value, 3) for key, value in asdict(self.figures).items()},
        }

    def to_line(self) -> str:
        f = self.figures
        met = {None: "", True: "met", False: "NOT MET"}[self.is_met]
        wanted = "" if self.is_met is None else str(self.target)
        return (
            f"| {self.call} | {self.connections} | {f.rate:,.0f} | {f.rate / self.u:.3f} | "
            f"{f.p50:.1f} | {f.p99:.1f} | {f.errors} | {f.cpu:,.0f} | {wanted} | {met} |"
        )


HEAD = (
    "| call | connections | requests/s | of U | p50 ms | p99 ms | errors | CPU µs | target | |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
