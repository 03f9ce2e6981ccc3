"""All Redis key and channel names. No other file contains one.

RQ's keys (``rq:...``) come from RQ where it names them, otherwise from here.
"""

from __future__ import annotations

import base64
import hashlib
import re

from jobs.contract.errors import InvalidRequestError

DEFAULT_MODEL_ID = "0"

NO_MODEL = ""
"""The model_id of jobs that belong to no model: pulls. No client can send it."""

PULL_SLUG = "_pull"
"""The slug of ``NO_MODEL``. It is not in ``SLUGS``: no supervisor owns or drains it."""

PULL_QUEUE = "mgs-pull"
"""Queue of all machines' pulls. Each job names its machine."""

DESIRED_MODELS = "mgs:desired"
"""Hash: slug -> encoded ``DesiredModel``."""

SLUGS = "mgs:slugs"
"""Set: slugs of the models whose queues may hold jobs. No other queue is touched."""

NODE_INDEX = "mgs:node-index"
"""Sorted set: uids of the nodes with a supervisor, scored by its last heartbeat."""

JOB_INDEX = "mgs:jobs"
"""Sorted set: all job ids, scored by creation time (epoch seconds)."""

JOB_EXPIRY = "mgs:expiry"
"""Sorted set: the ids of ``JOB_INDEX``, scored by expiry of their records (epoch seconds)."""

RESPONSE_EXPIRY = "mgs:response-expiry"
"""Sorted set: the ids of stored responses, scored by their expiry (epoch seconds)."""

LAST_EXPIRY = "mgs:last-expiry"
"""String: when a supervisor last deleted what had expired (epoch seconds)."""

LIVE = "mgs:live"
"""Sorted set: ids of clients' waiting and running jobs, scored by creation time."""

TOTALS = "mgs:totals"
"""Hash: totals of all ended jobs (``jobs/storage/totals.py``)."""

STORAGE_MARK = "mgs:storage"
"""String: a random mark, set by a supervisor when it is missing. A change means lost data."""

LAYOUT = "mgs:layout"
"""String: number of upgrade steps done in this Redis (``jobs/upgrade/moves.py``)."""

APIS = "mgs:apis"
"""Set: names of the API processes."""

WAKEUP = "mgs:wakeup"
"""Channel: wakes supervisors and API processes when ``DESIRED_MODELS`` has changed."""

YIELD_COMMAND = "yield-job"
"""Command to a queue consumer, beside RQ's own: hand a running generation back to its queue."""

_PLAIN_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MODEL_ID_MAX = 64


def check_model_id(model_id: str) -> str:
    """Return a valid model_id. Raises ``InvalidRequestError`` for any other."""
    if not 1 <= len(model_id) <= _MODEL_ID_MAX or not model_id.isprintable():
        raise InvalidRequestError(
            "a model_id has 1 to 64 characters and no control characters", "X-Model-Id"
        )
    return model_id


def slug_of(model_id: str) -> str:
    """A unique form of the model_id for queue names and URLs.

    Plain ids stay as they are, others become ``x`` + 26 characters of a hash. A plain id that
    looks like such a hash is hashed too, so that no two ids share a slug.
    """
    if model_id == NO_MODEL:
        return PULL_SLUG
    is_plain = _PLAIN_SLUG.fullmatch(model_id) and not re.fullmatch(r"x[a-z2-7]{26}", model_id)
    if is_plain:
        return model_id
    digest = hashlib.sha256(model_id.encode()).digest()[:16]
    return "x" + base64.b32encode(digest).decode().rstrip("=").lower()


def generation_queue(slug: str) -> str:
    """Queue of generations. A job is taken when a slot is free."""
    return f"mgs-gen-{slug}"


def batch_queue(slug: str) -> str:
    """Queue of generations of the batch class, which give way to those of ``generation_queue``."""
    return f"mgs-batch-{slug}"


def control_queue(slug: str) -> str:
    """Queue of all other jobs, such as load and embed. They do not wait for generations."""
    return f"mgs-ctl-{slug}"


def queues_of(slug: str) -> tuple[str, ...]:
    """All queues of a model, or that of the pulls."""
    if slug == PULL_SLUG:
        return (PULL_QUEUE,)
    return control_queue(slug), generation_queue(slug), batch_queue(slug)


def wake_key(queue: str) -> str:
    """List: gets an entry when a job is queued. The queue consumer waits for it."""
    return f"mgs:wake:{queue}"


def hints_key(queue: str) -> str:
    """Set: the callers that have a hint in the queue. Scripts build the names of the hints."""
    return f"mgs:hints:{queue}"


def hint_key(queue: str, caller: str) -> str:
    """Sorted set: the caller's jobs on the queue in the order in which they are to be taken.

    Scored by creation time and priority (``SUBMIT``). The queue's list is the truth.
    """
    return f"{hints_key(queue)}:{caller}"


def fair_key(slug: str) -> str:
    """Hash: what callers have used of a model, in tokens divided by their weight.

    Fields: ``<class>:<caller>``, and ``last:<class>``: the caller whose job was taken last.
    """
    return f"mgs:fair:{slug}"


def hold_key(slug: str) -> str:
    """Hash: the classes of a model that are held or drained.

    Fields: ``<class>``: ``hold`` (no job is taken) or ``drain`` (no new one is accepted);
    ``<class>:by``, ``<class>:at`` and ``<class>:resumed_at`` (epoch seconds).
    """
    return f"mgs:hold:{slug}"


def worker_name(slug: str, consumer: str, token: str) -> str:
    """RQ name of a queue consumer.

    ``token`` is new at each start, since RQ rejects a name that is still registered.
    """
    return f"{slug}.{consumer}.{token}"


def worker_names(slug: str, token: str) -> list[str]:
    """RQ names of the consumers of a worker: of interactive, batch and control jobs."""
    return [worker_name(slug, consumer, token) for consumer in ("gen", "batch", "ctl")]


def pull_worker_name(node: str, token: str) -> str:
    """RQ name of the process that pulls for the node with that uid."""
    return worker_name(PULL_SLUG, node, token)


def node_of_pull_worker(worker: str) -> str:
    """The uid in a name made by ``pull_worker_name``."""
    return worker.removeprefix(f"{PULL_SLUG}.").partition(".")[0]


def slug_of_worker(worker: str) -> str:
    """The slug in a name made by ``worker_name``."""
    return worker.partition(".")[0]


def rq_worker_key(worker: str) -> str:
    """RQ's hash of a registered consumer."""
    return f"rq:worker:{worker}"


def rq_worker_executions_key(worker: str) -> str:
    """RQ's set of a consumer's executions."""
    return f"{rq_worker_key(worker)}:executions"


def rq_executions_key(job_id: str) -> str:
    """RQ's sorted set of a job's executions."""
    return f"rq:executions:{job_id}"


def rq_command_channel(worker: str) -> str:
    """RQ's channel of commands to a consumer."""
    return f"rq:pubsub:{worker}"


def rq_registry_keys(queue: str) -> list[str]:
    """RQ's registries of a queue's ended jobs."""
    return [f"rq:{kind}:{queue}" for kind in ("finished", "failed", "canceled")]


def unload_job_id(desired_uid: str) -> str:
    """Id of the job that unloads a desired model. Its worker looks for that id."""
    return f"unload-{desired_uid}"


def unloaded_key(slug: str) -> str:
    """String with expiry: the ``DesiredModel`` of an unloaded model (see ``note_unload``)."""
    return f"mgs:unloaded:{slug}"


def load_failure_key(slug: str) -> str:
    """String with expiry: why the last load of a model that a request asked for failed."""
    return f"mgs:load-failed:{slug}"


def request_key(job_id: str) -> str:
    """String: the encoded request."""
    return f"mgs:req:{job_id}"


def job_key(job_id: str) -> str:
    """Hash: the job's ``JobRecord``."""
    return f"mgs:job:{job_id}"


def log_key(job_id: str) -> str:
    """Stream: the job's events, ids ``<attempt>-<seq>``."""
    return f"mgs:log:{job_id}"


def event_channel(job_id: str) -> str:
    """Channel: the job's events as they happen."""
    return f"mgs:evt:{job_id}"


def live_key(caller: str) -> str:
    """Sorted set: the jobs in ``LIVE`` of one caller. Scripts build this name too."""
    return f"{LIVE}:{caller}"


def response_key(response_id: str) -> str:
    """Hash with expiry: a stored response. Fields: ``record`` and ``answer``."""
    return f"mgs:response:{response_id}"


def take_key(worker: str) -> str:
    """String with expiry: the first take number of a worker that is served; ``dead``: none."""
    return f"mgs:take:{worker}"


def claims_key(slug: str) -> str:
    """Set: the claims (``claim``) of a model's workers on jobs, for recovery."""
    return f"mgs:claims:{slug}"


def claim(worker: str, job_id: str) -> str:
    """A member of the set ``claims_key``. Scripts build it too."""
    return f"{worker}|{job_id}"


def parse_claim(member: bytes) -> tuple[str, str] | None:
    """Worker and job id of a claim, ``None`` if it is malformed."""
    try:
        worker, _, job_id = member.decode().partition("|")
    except UnicodeDecodeError:
        return None
    return (worker, job_id) if worker and job_id else None


def status_key(slug: str) -> str:
    """String with expiry: a worker's heartbeat, an encoded ``WorkerStatus``."""
    return f"mgs:worker:{slug}"


def node_key(uid: str) -> str:
    """String with expiry: a supervisor's heartbeat, an encoded ``NodeStatus``."""
    return f"mgs:node:{uid}"


def owner_key(slug: str) -> str:
    """String with expiry: the supervisor that owns the model, ``<uid of the node>|<token>``."""
    return f"mgs:owner:{slug}"


def api_key(name: str) -> str:
    """String with expiry: an API process's heartbeat."""
    return f"mgs:api:{name}"
