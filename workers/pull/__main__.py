"""The process of one pull: ``python -m workers.pull --job ID --name NAME --lifeline FD``.

The supervisor starts it. ``--lifeline`` is the read end of a pipe whose other end the supervisor
holds: when it closes, the supervisor is dead and this process exits.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading

from jobs.logs import set_up_logging
from jobs.platform.current import current_platform
from jobs.settings import load_settings
from workers.exits import ExitCode
from workers.pull.worker import PullWorker

log = logging.getLogger("workers.pull")


def main() -> None:
    """Run the pull until the process ends."""
    arguments = _parse()
    settings = load_settings()
    set_up_logging(settings.log_level)
    threading.excepthook = _crash
    current_platform().title_process("mgs: download of a model")
    worker = PullWorker(settings, arguments.job, arguments.name)
    threading.Thread(target=_watch, args=(arguments.lifeline,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: worker.request_exit())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the supervisor sends SIGTERM
    worker.run()


def _crash(failure: threading.ExceptHookArgs) -> None:
    """End the process when a thread dies. Otherwise it would look alive but not work."""
    assert failure.exc_value is not None
    log.critical("thread died", extra={"of": str(failure.thread)}, exc_info=failure.exc_value)
    os._exit(ExitCode.CRASHED)


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(ExitCode.ORPHANED)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.pull")
    parser.add_argument("--job", required=True, help="id of the job")
    parser.add_argument("--name", required=True, help="RQ name of this process")
    parser.add_argument("--lifeline", type=int, required=True, help="file descriptor of the pipe")
    return parser.parse_args()


if __name__ == "__main__":
    main()
