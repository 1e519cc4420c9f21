"""Kept: what was made once and may be asked for again, up to a number of bytes.

Like `functools.lru_cache`, which counts results; but one result may be a thousand times as large
as another, and strangers choose which are asked for.
"""

import functools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def kept(limit: int, weigh: Callable[[Any], int]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep a function's results by its arguments, the last used ones, `limit` bytes in all.

    `weigh` estimates the bytes of a result; texts among the arguments are counted besides.
    """

    def decorate(make: Callable[P, R]) -> Callable[P, R]:
        results: OrderedDict[Hashable, tuple[R, int]] = OrderedDict()
        lock = threading.Lock()
        held = 0

        @functools.wraps(make)
        def get(*args: P.args, **named: P.kwargs) -> R:
            nonlocal held
            key = (args, *sorted(named.items()))
            with lock:
                if key in results:
                    results.move_to_end(key)
                    return results[key][0]
            made = make(*args, **named)
            weight = weigh(made) + sum(sys.getsizeof(arg) for arg in args if isinstance(arg, str))
            with lock:
                if key not in results and weight <= limit:
                    results[key] = made, weight
                    held += weight
                while held > limit:
                    _, (_, gone) = results.popitem(last=False)
                    held -= gone
            return made

        return get

    return decorate
