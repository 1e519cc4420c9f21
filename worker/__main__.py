"""`python -m worker`, and the entry point `ah-worker`."""

from worker.main import app


def main() -> None:
    app(prog_name="ah-worker")


if __name__ == "__main__":
    main()
