"""The worker process of one model.

``python -m workers --model-id ID --token T --uid UID --load-job JOB --owner OWNER``.

The supervisor starts it by exec. ``--memory-bytes`` is the model's share of the machine's memory.
``--lifeline`` is the read end of a pipe whose other end the supervisor holds. When it closes, the
supervisor is dead and the worker exits.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading

from jobs.logs import set_up_logging
from jobs.platform.current import current_platform
from jobs.settings import load_settings
from workers.exits import ExitCode
from workers.runtime.worker import ModelWorker

log = logging.getLogger("workers")

# With Python's default of 5 ms a busy decode loop would delay the publisher's thread.
_SWITCH_INTERVAL_S = 0.0005


def main() -> int:
    """Run the worker until the process ends."""
    arguments = _parse()
    settings = load_settings()
    set_up_logging(settings.log_level)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    threading.excepthook = _crash
    current_platform().title_process(f"mgs: worker of model {arguments.model_id}")
    if arguments.lifeline is not None:
        _watch_lifeline(arguments.lifeline)
    worker = ModelWorker(
        settings,
        arguments.model_id,
        arguments.token,
        arguments.uid,
        arguments.load_job,
        arguments.owner,
        arguments.memory_bytes or None,
    )

    def stop(signum: int, frame: object) -> None:
        worker.request_exit(ExitCode.STOPPED, None, settings.grace_s)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the supervisor sends SIGTERM
    return worker.run()


def _crash(failure: threading.ExceptHookArgs) -> None:
    """End the process when a thread dies. Otherwise the worker would look alive but not work."""
    assert failure.exc_value is not None
    log.critical("thread died", extra={"of": str(failure.thread)}, exc_info=failure.exc_value)
    os._exit(ExitCode.CRASHED)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers")
    parser.add_argument("--model-id", required=True)
    parser.add_argument("--token", required=True, help="suffix of the RQ worker names")
    parser.add_argument(
        "--uid", default="", help="uid of the desired model that this worker serves"
    )
    parser.add_argument("--load-job", required=True, help="id of the job that loads the model")
    parser.add_argument("--owner", required=True, help="the supervisor's name in the model's lock")
    parser.add_argument(
        "--memory-bytes",
        type=int,
        default=0,
        help="what the engine may take; 0: no limit of its own",
    )
    parser.add_argument("--lifeline", type=int, help="file descriptor of the lifeline pipe")
    return parser.parse_args()


def _watch_lifeline(fd: int) -> None:
    def watch() -> None:
        os.read(fd, 1)
        os._exit(ExitCode.ORPHANED)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
