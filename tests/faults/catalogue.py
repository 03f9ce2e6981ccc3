"""Every fault that is injected, with the goal that the product must meet.

The goals follow docs/architecture.md: after a worker's death a stream pauses and continues, or ends
with an error if its request has ``"on_worker_loss": "fail"``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    id: str
    fault: str
    goal: str
    waits_for: str = ""


GROUPS = {
    "F": "Workers",
    "R": "Redis",
    "C": "Clients",
    "L": "Load",
    "B": "Bad input",
    "S": "Security",
    "D": "Data, restart, upgrade",
    "U": "Data, restart, upgrade",
    "N": "Files, batches, keys, webhooks",
    "P": "Promises over many jobs",
}

ROWS = (
    Row(
        "F1",
        "kill -9 of a worker in mid-stream",
        "0 tokens lost or doubled; error event <= 2 s if requested; next token <= load + 2 s",
    ),
    Row(
        "F2",
        "worker and its supervisor frozen (a lost machine)",
        "/health/ready reports it <= 10 s; stream continues elsewhere or fails <= 15 s",
    ),
    Row(
        "F3",
        "kill -9 of a worker that loads a model",
        "processes per model = 1; waiting jobs served in order",
    ),
    Row(
        "F4",
        "kill -9 of a worker between taking a job and starting it",
        "starts elsewhere <= 3 s; 0 ids stranded",
    ),
    Row(
        "F5",
        "a stalled engine whose process sends heartbeats",
        "terminal event <= stall time + 2 s; the next job runs",
    ),
    Row(
        "F6",
        "stop during a long prefill",
        "stop to terminal event <= 1 s; not finished after a stop",
    ),
    Row(
        "F7",
        "a job much longer than its lease while RQ's tools count the registries",
        "attempts = 1; always listed as running",
    ),
    Row(
        "F8",
        "a worker frozen past its lease, and resumed after its job was returned",
        "ends = 1; 0 chunks of the old attempt after the new one's first",
    ),
    Row("F9", "poisoned RQ hashes", "worker deaths 0; other jobs delayed <= 1 s"),
    Row("F10", "1000 malformed messages on the command channel, then a stop", "stop <= 1 s"),
    Row(
        "F11",
        "a model that cannot be loaded",
        "error <= 2 s after the worker's; no restart loop",
    ),
    Row(
        "F12",
        "repeated load and unload",
        "processes, descriptors, zombies, keys +0; memory drift <= 5 %",
    ),
    Row("F13", "SIGTERM of a supervisor with a full queue", "exit <= grace + 2 s; 0 jobs lost"),
    Row("F14", "a worker stopped at random moments under load and a slow link", "0 jobs stranded"),
    Row(
        "F15",
        "a job that kills its worker (abort in the engine)",
        "deaths per job <= 2; other jobs served",
    ),
    Row("F16", "two supervisors on one Redis, one desired model", "workers per model = 1"),
    Row(
        "R1",
        "kill -9 of Redis and a start after 1, 5, 30, 120 s, idle",
        "first job <= 3 s after; worker pid unchanged; stop command works",
    ),
    Row(
        "R2",
        "Redis loses all data (FLUSHALL)",
        "error event <= 5 s; 0 hang; the next load works",
    ),
    Row("R3", "Redis unavailable while a job ends", "worker pid unchanged; 0 tokens lost"),
    Row("R4", "Redis frozen (SIGSTOP) in mid-stream", "/health <= 1 s; 0 chunks lost or doubled"),
    Row(
        "R5",
        "the reply to the n-th write of a job is lost, for every n; and a kill -9 after it",
        "every history ends as without a fault: text exact, one terminal event",
    ),
    Row(
        "R6",
        "Redis at maxmemory",
        "503 with Retry-After; worker restarts 0; served again <= 2 s after",
    ),
    Row(
        "R7",
        "Redis becomes a read-only replica, then master again",
        "worker restarts 0; served again <= 5 s after",
    ),
    Row(
        "R8", "connections to Redis cut at random under 20 streams", "0 lost, doubled or reordered"
    ),
    Row("R9", "a slow link to Redis", "exact; added time per chunk <= 1.5 round trips"),
    Row("R10", "subscribers cut by Redis every 2 s", "0 lost; longest gap <= 1 s"),
    Row("R11", "wrong password, no Redis", "exit or wait with an error text; no secret in the log"),
    Row("R12", "the clock of a worker jumps by an hour", "no job returned, every job expires"),
    Row(
        "C1",
        "clients close in mid-stream",
        "engine idle <= 1 s; other streams exact; descriptors, subscriptions +0",
    ),
    Row("C2", "clients close while their job waits", "starts = 0; gone <= 1 s"),
    Row(
        "C3",
        "clients close in prefill, and during a load",
        "slot free <= 1 s; processes per model = 1",
    ),
    Row(
        "C4",
        "one of two streams repeatedly aborted during prefill",
        "0 hangs; the other exact",
    ),
    Row(
        "C5",
        "a client that stops reading",
        "others' text exact; ended <= 35 s; API memory <= 2 MB per stuck client",
    ),
    Row("C6", "a client that is frozen without closing", "detected <= 60 s"),
    Row("C7", "events resumed at random positions with Last-Event-ID", "0 differences"),
    Row(
        "C8",
        "resume with a bad, future or foreign id",
        "4xx or an empty end; no other text; 0 hangs",
    ),
    Row("C9", "the same load sent at once by many clients", "processes per model = 1"),
    Row(
        "C10",
        "500 slow connections (headers, bodies)",
        "slow header cut <= 10 s, slow body <= 30 s; real clients <= 2x",
    ),
    Row(
        "L1",
        "1000 streams at once",
        "0 lost, doubled or reordered; >= 5000 tokens/s; API <= 300 MB",
    ),
    Row(
        "L2",
        "10 000 jobs waiting",
        "enqueue p99 <= 20 ms; list <= 200 ms; purge <= 5 s; in order; 0 lost",
    ),
    Row(
        "L3",
        "the queue's limit is reached",
        "429 with Retry-After <= 50 ms; accepted jobs unharmed",
    ),
    Row("L4", "a job queued past its time-out", "ended within 1 s of the limit; not started"),
    Row("L5", "200 connects a second", "no 5xx but 503; served <= 5 s after"),
    Row("L6", "500 jobs with different long prompts", "memory <= 1 MB per 100 jobs after warm-up"),
    Row(
        "L7",
        "a mixed load with a random fault each 20 s",
        "accepted = ended; text exact; descriptors, processes, keys +0",
    ),
    Row("L8", "three models, one of them overloaded", "others' first token: p99 <= +20 %"),
    Row("B1", "fuzzed bodies", "5xx = 0; worker deaths 0"),
    Row("B2", "lone surrogates, NUL, marks, control tokens as text", "400 or served; never 5xx"),
    Row("B3", "empty prompts, unknown roles, prompts at and over the context", "named 400 each"),
    Row(
        "B4",
        "bodies of 1 to 100 MB, lying lengths",
        "413 above the limit; API memory <= +3x the limit",
    ),
    Row("B5", "out-of-range numbers and lists", "400 each; <= 50 ms"),
    Row("B6", "grammars and schemas of exponential size", "worker deaths 0; check <= 100 ms"),
    Row("B7", "a grammar that does not parse", "400 each"),
    Row("B8", "broken model folders and files", "named error; other models unaffected"),
    Row("S1", "forged jobs: functions, callbacks, webhooks", "executed 0; connections 0"),
    Row("S2", "pickles in every field of a job", "unpickled 0"),
    Row("S3", "no, wrong, empty, long key; key in the query", "401 each, same body"),
    Row("S4", "listening beyond this machine without a key", "refuses to start"),
    Row("S5", "foreign Host and Origin", "421 or 403 each; no CORS header"),
    Row("S6", "model names and ids with paths outside the folder", "4xx each; opens outside = 0"),
    Row("S7", "job ids of other clients", "404; ids >= 122 random bits"),
    Row("S8", "hostile chat templates", "code run 0; stopped in time"),
    Row(
        "S9",
        "templates, adapters and paths in the request",
        "ignored, 400 or 404",
    ),
    Row(
        "S10",
        "prompts with newlines, escapes and secrets",
        "prompts in logs, descriptions, RQ's hashes: 0; one line per record",
    ),
    Row(
        "S11", "another user of the machine and the embedded Redis", "socket 0600/0700, no TCP port"
    ),
    Row("S12", "addresses in requests (webhooks, images)", "connections made = 0"),
    Row("S13", "strings that make regular expressions slow", "<= 50 ms each"),
    Row("S14", "the dashboard from a foreign page", "refused; nothing can be changed"),
    Row("S15", "cross-talk: many tagged streams, random disconnects and cuts", "foreign tokens 0"),
    Row("S16", "dependencies with known critical vulnerabilities", "none below the fixed versions"),
    Row(
        "D1", "kill -9 of everything in mid-load", "0 queued jobs lost; orphans 0; up <= 5 s + load"
    ),
    Row("D2", "kill -9 of the supervisor, of the API", "workers per model = 1; streams continue"),
    Row("D3", "kill -9 of the embedded Redis", "back <= 3 s; 0 jobs lost"),
    Row("D4", "disk full under Redis", "503 on new jobs; recovers; restarts 0"),
    Row("D5", "a truncated append-only file", "starts; only the tail is lost"),
    Row("D6", "purge while jobs start", "each job purged or run: both or neither = 0"),
    Row("D7", "keys in Redis after all jobs have expired", "keys per job = 0"),
    Row("U1", "API restarted under open streams", "jobs can be read by id: text exact"),
    Row("U2", "jobs of another version", "failed with a named error; worker deaths 0"),
    Row("U3", "a model file replaced while it is loaded", "mixed output 0"),
    Row("U4", "RQ's own view in every state", "equal to the product's records"),
    Row(
        "N1",
        "kill -9 of the batch runner, and a torn last line of its journal",
        "each line answered once, in order; text exact; no job left in Redis",
    ),
    Row(
        "N2",
        "kill -9 of runner and API in a batch; two runners, one killed",
        "each line answered once, in order",
    ),
    Row(
        "N3",
        "disk full under a batch, under an upload",
        "the batch says so and goes on; 507, and nothing left of the file",
    ),
    Row(
        "N4",
        "Redis loses all data (FLUSHALL) in mid-batch, and with files",
        "each line answered once; all files listed again",
    ),
    Row(
        "N5",
        "kill -9 of the API in an upload, of writers of files at any moment",
        "whole files only; parts removed",
    ),
    Row("N6", "an upload that expires", "400, then 404; its parts removed, others kept"),
    Row(
        "N7",
        "a webhook receiver that is lost and comes back; one that hangs",
        "each event delivered once it is back, with one id; given up after 15 s",
    ),
    Row(
        "N8",
        "kill -9 of a webhook sender, and of Redis under one",
        "each event delivered at least once",
    ),
    Row(
        "N9",
        "a key removed while its stream, background job and batch run",
        "what was accepted ends, text exact; 401 for what comes later",
    ),
    Row(
        "N10",
        "the clock of the batch runner jumps by an hour, and back",
        "each line answered once; text exact",
    ),
    Row(
        "P1",
        "streams while connections and subscribers are cut, replies lost, workers killed",
        "0 tokens lost, doubled or reordered of >= 1 000 000",
    ),
    Row(
        "P2",
        "10 000 jobs, 200 kills of workers at random moments",
        "0 jobs lost; 0 with two terminal events",
    ),
)
