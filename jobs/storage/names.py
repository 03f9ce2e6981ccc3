"""Every Redis name of the product. No other file spells one.

RQ's own keys (``rq:...``) come from RQ, and where it has no name for one, from here.
"""

from __future__ import annotations

import base64
import hashlib
import re

from jobs.contract.errors import InvalidRequestError

DEFAULT_MODEL_ID = "0"

DESIRED_MODELS = "mgs:desired"
"""Hash: slug -> encoded ``DesiredModel``: what should be loaded."""

SLUGS = "mgs:slugs"
"""Set: slugs of the models whose queues may hold jobs. Only these queues are ours to act on."""

NODE_INDEX = "mgs:node-index"
"""Sorted set: uids of the nodes with a supervisor, scored by its last heartbeat."""

JOB_INDEX = "mgs:jobs"
"""Sorted set of all job ids known, scored by creation time (epoch seconds)."""

JOB_EXPIRY = "mgs:expiry"
"""Sorted set: the ids of ``JOB_INDEX``, scored by when their records expire (epoch seconds)."""

LIVE = "mgs:live"
"""Sorted set: ids of the jobs of clients that wait or run, scored by creation time."""

TOTALS = "mgs:totals"
"""Hash: what all ended jobs add up to (``jobs/storage/totals.py``)."""

STORAGE_MARK = "mgs:storage"
"""String: drawn anew whenever a supervisor finds none. Another one, or none: all data was lost."""

LAYOUT = "mgs:layout"
"""String: how many moves of names this Redis has seen (``jobs/upgrade/moves.py``)."""

APIS = "mgs:apis"
"""Set: names of the API processes."""

WAKEUP = "mgs:wakeup"
"""Channel: rung when ``DESIRED_MODELS`` has changed; supervisors reconcile at once."""

_PLAIN_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MODEL_ID_MAX = 64


def check_model_id(model_id: str) -> str:
    """The model_id itself, or ``InvalidRequestError``: 1 to 64 characters, no control ones."""
    if not 1 <= len(model_id) <= _MODEL_ID_MAX or not model_id.isprintable():
        raise InvalidRequestError(
            "a model_id has 1 to 64 characters and no control characters", "X-Model-Id"
        )
    return model_id


def slug_of(model_id: str) -> str:
    """A name fit for queue names and URLs, one to one with the model_id.

    Plain ids stay as they are; others become ``x`` + 26 characters of a hash. (A plain id that
    looks like such a hash is hashed too, so that no two ids share a slug.)
    """
    is_plain = _PLAIN_SLUG.fullmatch(model_id) and not re.fullmatch(r"x[a-z2-7]{26}", model_id)
    if is_plain:
        return model_id
    digest = hashlib.sha256(model_id.encode()).digest()[:16]
    return "x" + base64.b32encode(digest).decode().rstrip("=").lower()


def generation_queue(slug: str) -> str:
    """Queue of the completions; drained as slots free."""
    return f"mgs-gen-{slug}"


def control_queue(slug: str) -> str:
    """Queue of load, unload, token counts and embeddings; never waits behind generations."""
    return f"mgs-ctl-{slug}"


def queues_of(slug: str) -> tuple[str, ...]:
    """Every queue of a model."""
    return control_queue(slug), generation_queue(slug)


def wake_key(queue: str) -> str:
    """List: not empty after a job was put on the queue; its consumer waits on it."""
    return f"mgs:wake:{queue}"


def worker_name(slug: str, consumer: str, token: str) -> str:
    """RQ name of a worker's loop; ``token`` is new at each start, since RQ rejects a name that is
    still registered."""
    return f"{slug}.{consumer}.{token}"


def slug_of_worker(worker: str) -> str:
    """The slug in a name of ``worker_name``."""
    return worker.partition(".")[0]


def rq_worker_key(worker: str) -> str:
    """Hash of RQ: a registered worker's loop."""
    return f"rq:worker:{worker}"


def rq_worker_executions_key(worker: str) -> str:
    """Set of RQ: the executions of a worker's loop."""
    return f"{rq_worker_key(worker)}:executions"


def rq_executions_key(job_id: str) -> str:
    """Sorted set of RQ: the executions of a job."""
    return f"rq:executions:{job_id}"


def rq_command_channel(worker: str) -> str:
    """Channel of RQ: commands to a worker's loop."""
    return f"rq:pubsub:{worker}"


def rq_registry_keys(queue: str) -> list[str]:
    """RQ's registries of what has ended on a queue."""
    return [f"rq:{kind}:{queue}" for kind in ("finished", "failed", "canceled")]


def unload_job_id(desired_uid: str) -> str:
    """Id of the job that unloads a desired model: its worker takes it by that id."""
    return f"unload-{desired_uid}"


def unloaded_key(slug: str) -> str:
    """String with expiry: what an unloaded model was desired as (see ``note_unload``)."""
    return f"mgs:unloaded:{slug}"


def request_key(job_id: str) -> str:
    """String: the encoded request."""
    return f"mgs:req:{job_id}"


def job_key(job_id: str) -> str:
    """Hash: state of the job (``JobRecord``)."""
    return f"mgs:job:{job_id}"


def log_key(job_id: str) -> str:
    """Stream: the job's events, ids ``<attempt>-<seq>``."""
    return f"mgs:log:{job_id}"


def event_channel(job_id: str) -> str:
    """Channel: the same events as they happen."""
    return f"mgs:evt:{job_id}"


def live_key(caller: str) -> str:
    """Sorted set: those of ``LIVE`` that one caller has submitted (the scripts spell it too)."""
    return f"{LIVE}:{caller}"


def response_key(response_id: str) -> str:
    """Hash with expiry: a stored response, in the fields ``record`` and ``answer``."""
    return f"mgs:response:{response_id}"


def take_key(worker: str) -> str:
    """String with expiry: from which of its takes on a worker is answered; ``dead``: none."""
    return f"mgs:take:{worker}"


def claims_key(slug: str) -> str:
    """Set: which worker of a model holds which job (``claim``), for their recovery."""
    return f"mgs:claims:{slug}"


def claim(worker: str, job_id: str) -> str:
    """A member of that set (the scripts spell it too)."""
    return f"{worker}|{job_id}"


def parse_claim(member: bytes) -> tuple[str, str] | None:
    """Worker and job id of a member of that set; ``None`` for what is none."""
    try:
        worker, _, job_id = member.decode().partition("|")
    except UnicodeDecodeError:
        return None
    return (worker, job_id) if worker and job_id else None


def status_key(slug: str) -> str:
    """String with expiry: the encoded ``WorkerStatus``, a worker's heartbeat."""
    return f"mgs:worker:{slug}"


def node_key(uid: str) -> str:
    """String with expiry: the encoded ``NodeStatus``, a supervisor's heartbeat."""
    return f"mgs:node:{uid}"


def owner_key(slug: str) -> str:
    """String with expiry: the supervisor that runs the model, ``<uid of the node>|<token>``."""
    return f"mgs:owner:{slug}"


def api_key(name: str) -> str:
    """String with expiry: an API process's heartbeat."""
    return f"mgs:api:{name}"
