"""``mgs``: a command line for the HTTP API, the server itself and its Redis.

It imports neither the API nor an engine, so that it starts quickly.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import tables as cli_tables
from api.cli.batches import batch, batches
from api.cli.client import CliError, Server
from api.cli.keys import app as keys_app
from api.cli.open_page import open_page_soon
from api.cli.pulling import pull, remove
from api.cli.queues import drain, hold, purge, resume, show_waiting_jobs
from api.cli.serve import project_root, serve
from api.cli.service.commands import app as service_app
from jobs.settings import Settings, load_settings

app = typer.Typer(
    help="Serve and talk to local MLX and GGUF models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(service_app, name="service")
app.add_typer(keys_app, name="keys")
app.command()(pull)
app.command()(batch)
app.command()(batches)
app.command("rm")(remove)
for _command in (hold, drain, resume, purge):
    app.command()(_command)

Url = Annotated[str | None, typer.Option("--url", help="Server; default: MGS_HOST and MGS_PORT.")]
ModelId = Annotated[str, typer.Option("--id", help="Model id, as in the X-Model-Id header.")]


def main() -> None:
    """Run a command from any folder; an error is one line and exit status 1."""
    folder = Path.cwd()
    os.chdir(project_root())
    _read_dotenv()
    try:
        app(obj=folder)
    except CliError as error:
        print(f"mgs: {error}", file=sys.stderr)
        sys.exit(1)


@app.command("serve")
def serve_command(
    is_opening: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Start Redis, the API and the workers; Ctrl-C stops them."""
    settings = _settings()
    if is_opening:
        open_page_soon(settings)
    sys.exit(serve(settings))


@app.command()
def load(
    name: Annotated[str, typer.Argument(help="Entry of the models folder.")],
    model_id: ModelId = "0",
    chat_format: Annotated[str | None, typer.Option(help="Chat format of a GGUF model.")] = None,
    context: Annotated[int | None, typer.Option(help="Context length in tokens.")] = None,
    slots: Annotated[int | None, typer.Option(help="Sequences that run at once.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Entry of the adapters folder.")] = None,
    kv_bits: Annotated[int | None, typer.Option(help="Bits of the KV cache's values.")] = None,
    kv_layout: Annotated[
        str | None, typer.Option(help="KV cells of a GGUF model: unified or per_slot.")
    ] = None,
    draft: Annotated[str | None, typer.Option(help="Model that drafts tokens.")] = None,
    draft_tokens: Annotated[int | None, typer.Option(help="Tokens drafted per step.")] = None,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds without a job after which it is parked.")
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Never park it.")] = False,
    priority: Annotated[
        int | None, typer.Option(help="-100 to 100; lower ones are parked first.")
    ] = None,
    estimate_only: Annotated[
        bool, typer.Option("--estimate-only", help="Only say what memory it needs.")
    ] = False,
    url: Url = None,
) -> None:
    """Load a model and show the progress."""
    options: dict[str, str | int | None] = {
        "chat_format": chat_format,
        "context_length": context,
        "slots": slots,
        "adapter_name": adapter,
        "kv_bits": kv_bits,
        "kv_layout": kv_layout,
        "draft_model": draft,
        "num_draft_tokens": draft_tokens,
    }
    body: dict[str, Any] = {"llm_model_name": name}
    body |= {k: v for k, v in options.items() if v is not None}
    server = Server(_settings(), url)
    if estimate_only:
        return _estimate(server, {k: v for k, v in body.items() if k != "chat_format"})
    keeping = {"ttl": ttl, "pinned": pin or None, "priority": priority}
    body |= {k: v for k, v in keeping.items() if v is not None}
    started = time.monotonic()
    headers = {"X-Model-Id": model_id, "Prefer": "respond-async"}
    response = server.post("/v1/internal/model/load", body, headers)
    if response.status_code == 202:
        _follow_load(server, response.headers["Location"], name)
    print(f"{name} is loaded as model {model_id} ({time.monotonic() - started:.1f} s)")


@app.command()
def unload(model_id: ModelId = "0", url: Url = None) -> None:
    """Unload a model: its process ends and its memory is free."""
    Server(_settings(), url).post("/v1/internal/model/unload", {}, {"X-Model-Id": model_id})
    print(f"model {model_id} is unloaded")


@app.command()
def ps(url: Url = None) -> None:
    """Show the loaded models, their processes and queues."""
    cli_tables.show_processes(Server(_settings(), url).get("/management/processes"))


@app.command()
def models(
    check: Annotated[
        bool, typer.Option("--check", help="Check models.toml, and say what is not listed.")
    ] = False,
    url: Url = None,
) -> None:
    """Show the models on disk, and which are loaded."""
    if not check:
        cli_tables.show_models(Server(_settings(), url).get("/v1/models")["data"])
        return
    from api.cli.models_check import check_models

    if not check_models(_settings()):
        sys.exit(1)


@app.command()
def jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    model_id: Annotated[str | None, typer.Option("--id", help="Only jobs of this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    queue: Annotated[
        bool, typer.Option("--queue", help="Those that wait, in their order, and the queues.")
    ] = False,
    url: Url = None,
) -> None:
    """Show the newest jobs, or those that wait."""
    server = Server(_settings(), url)
    if queue:
        return show_waiting_jobs(server, model=model_id)
    page = server.get("/v1/jobs", limit=limit, status=status, model=model_id)
    cli_tables.show_jobs(page)


@app.command()
def chat(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Model; default: the server's.")] = "",
    prompt: Annotated[str, typer.Argument(help="A single question: only print the answer.")] = "",
    system: Annotated[str, typer.Option(help="System text.")] = "",
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of an answer.")] = None,
    think: Annotated[bool | None, typer.Option(help="Whether the model thinks first.")] = None,
    url: Url = None,
) -> None:
    """Talk to a model; without a terminal, answer standard input."""
    from api.cli.chat.command import converse

    options = {"temperature": temperature, "max_tokens": max_tokens, "enable_thinking": think}
    given = {name: value for name, value in options.items() if value is not None}
    settings = _settings()
    converse(settings, Server(settings, url), name, prompt, system, given, context.obj)


@app.command()
def redis() -> None:
    """Run only the embedded Redis (`mgs serve` starts it, too)."""
    from jobs.embedded_redis.launcher import main as run_redis

    sys.exit(run_redis())


@app.command(
    "redis-cli", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def redis_cli(context: typer.Context) -> None:
    """Open the server's Redis with redis-cli; arguments are passed on."""
    from api.cli.redis_cli import open_redis

    open_redis(_settings(), context.args)


@app.command()
def dash(port: Annotated[int, typer.Option(min=1, max=65535)] = 9181) -> None:
    """Watch queues, jobs and workers in a browser (rq-dashboard, read-only)."""
    from api.cli.dashboard import run_dashboard

    run_dashboard(_settings(), port)


@app.command()
def doctor(url: Url = None) -> None:
    """Check the requirements of a server; exit status 1 if one is not met."""
    from api.cli.doctor import examine, show_checks

    settings = _settings()
    if not show_checks(examine(settings, Server(settings, url))):
        sys.exit(1)


@app.command()
def check(
    model: Annotated[
        list[str] | None, typer.Option(help="Models to try; default: both demo models.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long all models are busy at once.")] = 10.0,
    sleep: Annotated[bool, typer.Option(help="Also try a sleep of the machine.")] = False,
) -> None:
    """Try this machine with a server of its own, and write a report for an issue."""
    from api.cli.check.commands import DEMO_MODELS, Machine
    from api.cli.check.report import write_report
    from api.cli.check.rows import models_of
    from api.cli.doctor import show_checks

    folder = _settings().models_dir.resolve()
    names = models_of(folder, model or list(DEMO_MODELS))
    machine = Machine(folder, names, seconds, sleep, lambda text: print(text, flush=True))
    is_well = show_checks(machine.examine())
    print(f"report: {write_report(machine.done, '' if is_well else machine.log)}")
    if not is_well:
        sys.exit(1)


def _estimate(server: Server, options: dict[str, str | int]) -> None:
    """Show what the model would need; exit status 1 if that is more than the budget."""
    answer = server.get("/v1/internal/model/estimate", **options)
    cli_tables.show_estimate(answer)
    if answer["fits"] is False:
        sys.exit(1)


def _follow_load(server: Server, job: str, name: str) -> None:
    """Show the load job's progress up to its end."""
    with cli_tables.progress_bar() as bar:
        line = bar.add_task(f"loading {name}", total=1.0)
        try:
            for event in server.events(f"{job}/events"):
                if event["kind"] == "progress" and event.get("fraction") is not None:
                    bar.update(line, completed=event["fraction"])
                if event["kind"] in ("failed", "cancelled"):
                    raise CliError(_reason(event))
        except KeyboardInterrupt:
            raise CliError("interrupted; the load continues (see `mgs ps`)") from None


def _reason(event: dict[str, Any]) -> str:
    error = event.get("error") or {}
    return str(error.get("message") or f"the load was {event['kind']}")


def _settings() -> Settings:
    return load_settings()


def _read_dotenv() -> None:
    # As honcho does, but for every command, and variables of the shell have precedence.
    from dotenv import load_dotenv

    load_dotenv(project_root() / ".env", override=False)


if __name__ == "__main__":
    main()
