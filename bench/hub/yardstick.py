"""U, the yardstick: a bare Starlette route that answers 200 constant bytes, in one process.

python -m bench.hub.yardstick
"""

import socket

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BODY = b"x" * 200


async def answer(_: Request) -> Response:
    return Response(BODY)


def main() -> None:
    app = Starlette(routes=[Route("/", answer)])
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_config=None)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as sock:
        print(f"U listens on http://127.0.0.1:{sock.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
