"""`nnunet-echo serve -m MODEL`: a page on this computer to drop a clip on; it is measured, and the report shown."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from nnunet_echo.cli.predict import add_model, load_model

LIMIT_MB = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    add_model(parser)
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open nothing")
    parser.add_argument(
        "--limit", type=int, default=LIMIT_MB, metavar="MB", help="the largest clip, in MB (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or a signal to end; 0 then. Raises as `load_model`, and for a port that cannot be had."""
    from nnunet_echo.cine.serve.server import serving
    from nnunet_echo.cine.study import measure_study

    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: must lie between 0 and 65535. Leave it out for any that is free.")
    if args.limit < 1:
        raise ValueError(f"--limit {args.limit}: must be at least 1 MB.")
    model = load_model(args)
    model.stream([])  # raises where the model takes no frames
    measure = partial(measure_study, model)
    with _until_told() as ended, serving(measure, args.limit * 10**6, args.port) as server:
        print(f"The page is at {server.url}")
        print("Whoever has this address on this computer can use it; no other computer can. Ctrl-C ends it, and")
        print("deletes clips and results. Research use, not a medical device.", flush=True)
        if not args.no_browser:
            _open(server.first_url)
        while not ended:
            time.sleep(0.2)
    print("ended; clips and results are deleted")
    return 0


@contextmanager
def _until_told() -> Iterator[list[int]]:
    """A list that is empty until a signal asks for the end. A second one changes nothing."""
    ended: list[int] = []
    asking = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, lambda number, _: ended.append(number)) for number in asking}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(url: str) -> None:
    """In the user's browser, if there is one; the address is printed in any case."""
    import webbrowser

    try:
        webbrowser.open(url)
    except webbrowser.Error:
        print("No browser could be opened: open the address yourself.", flush=True)
