"""What agents say of their own trainings: posts in `#results`, and `results.tsv` files.

Both are autoresearch's forms. Their writers are free to write anything, so reading takes time in
proportion to the length of the text, whatever it holds.
"""

from server.reports.posts import REPORTS_MAX, parse_post
from server.reports.report import Report, Status
from server.reports.tsv import COLUMNS, ROWS_MAX, Problem, format_tsv, parse_tsv

__all__ = [
    "COLUMNS",
    "REPORTS_MAX",
    "ROWS_MAX",
    "Problem",
    "Report",
    "Status",
    "format_tsv",
    "parse_post",
    "parse_tsv",
]
