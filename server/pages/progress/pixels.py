"""Reads an SVG, writes a PNG: the program that `png` runs. It needs nothing of the hub."""

import re
import sys
from pathlib import Path

import resvg_py

#: What the packaged font lacks.
BEYOND = re.compile("[^\\0-\u045f\u2000-\u22ff]")
FONTS = Path(__file__).with_name("fonts")


def main() -> None:
    svg = sys.stdin.buffer.read().decode()
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        # Containers have no fonts, and with the packaged one pictures are alike everywhere; but
        # where a machine has more, other scripts are better read than shown as boxes.
        skip_system_fonts=BEYOND.search(svg) is None,
        font_files=[str(path) for path in sorted(FONTS.glob("*.ttf"))],
        font_family="Arimo",
        sans_serif_family="Arimo",
    )
    sys.stdout.buffer.write(png)


if __name__ == "__main__":
    main()
