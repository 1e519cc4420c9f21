"""The progress of a track as a picture: grey discards, green keeps, the line of the best so far.

A `Series` holds the experiments, without a database. `layout` gives each its place, `labels` finds
room for words; the pages draw that with their own style, `svg` as a picture that stands alone,
and `png` turns that picture into pixels.
"""

from server.pages.progress.layout import Area, Picture, draw_progress
from server.pages.progress.series import Point, Series, Status, XAxis

__all__ = ["Area", "Picture", "Point", "Series", "Status", "XAxis", "draw_progress"]
