"""The load bench: every call of a hub, at any size, against a bare route of the same server.

`python -m bench.hub --help`; what it measures and how is told in bench/README.md.
"""
