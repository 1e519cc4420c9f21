"""The colours of the standalone picture: those of the pages, written down."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Palette:
    paper: str
    ink: str
    dim: str
    rule: str
    faint: str
    accent: str
    keep: str
    outline: str
    warn: str


class Theme(StrEnum):
    LIGHT = "light"
    DARK = "dark"


PALETTES = {
    Theme.LIGHT: Palette(
        paper="#fbfaf8",
        ink="#1e1d1b",
        dim="#66625b",
        rule="#e9e5de",
        faint="#bdb8af",
        accent="#0b7258",
        keep="#2fb58c",
        outline="#0a4f3d",
        warn="#a8480b",
    ),
    Theme.DARK: Palette(
        paper="#141517",
        ink="#e6e4df",
        dim="#9d9a93",
        rule="#26282c",
        faint="#55575b",
        accent="#4fc9a4",
        keep="#4fc9a4",
        outline="#d3f5e9",
        warn="#f0a56a",
    ),
}
