"""`advisor serve`, `token` and `mcp`: the options of the service, which is loaded when one of them runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from advisor.cli.options import Choice, examples
from advisor.console import echo, say
from advisor.errors import UserError
from advisor.service.base.settings import DATA, DEFAULT_PROJECT, PORT, SCOPES, ServiceLimits, ServiceSettings


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where the service keeps things."""
    data = click.option(
        "--data",
        metavar="DIR",
        default=DATA,
        show_default=True,
        help="Folder for uploads, runs and the database.",
    )
    database = click.option(
        "--database", metavar="URL", help="postgresql://USER@HOST/NAME instead of the embedded database."
    )
    return data(database(command))


def check_service() -> None:
    """UserError when what the service needs is not installed."""
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise UserError("the service is not installed: pip install 'tuning-advisor[service]'")


@click.command(
    epilog=examples(
        "advisor serve --data /srv/advisor",
        "advisor serve --host 0.0.0.0 --allow-host tuning.example.org --database "
        "postgresql://advisor@db/advisor",
    )
)
@where_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Interface to bind; use 0.0.0.0 to allow other machines.",
)
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Accept this host name in requests; repeatable.",
)
@click.option(
    "--address",
    "cluster",
    metavar="ADDRESS",
    help="A Ray cluster for tuning jobs. By default, they run on this machine.",
)
@click.option(
    "--https", "secure", is_flag=True, help="Browsers reach the service only by https, through a proxy."
)
@click.option(
    "--executor",
    type=Choice(("ray", "in-process")),
    default="ray",
    show_default=True,
    help="For tuning jobs on this machine: ray trains on all its cores, in-process on one.",
)
@click.option("--requests-a-minute", type=click.IntRange(1), help="Most requests a minute for each token.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="Days until a project's data are deleted."
)
@click.option("--quiet", is_flag=True, help="Do not log each request.")
def serve(
    data: str,
    database: str | None,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    cluster: str | None,
    secure: bool,
    executor: str,
    requests_a_minute: int | None,
    days: float | None,
    quiet: bool,
) -> None:
    """Serve advice, ask and tell, and tuning over HTTP, with a web page.

    Prints a URL that opens the page once. Programs need a token: `advisor token create`.
    """
    check_service()
    from advisor.service.server import serve_until_stopped

    limits = ServiceLimits()
    limits = limits if requests_a_minute is None else replace(limits, requests_a_minute=requests_a_minute)
    limits = limits if days is None else replace(limits, days=days)
    settings = ServiceSettings(
        Path(data), database, host, port, hosts, cluster, secure, executor, limits=limits
    )
    serve_until_stopped(settings, logging.WARNING if quiet else logging.INFO)


@click.group(
    epilog=examples("advisor token create --scope run --name nightly", "advisor token revoke tk_0123abcd")
)
def token() -> None:
    """The tokens with which programs and users sign in to the service: create, list, revoke."""


@token.command(
    "create", epilog=examples("advisor token create", "advisor token create --project vision --scope admin")
)
@where_options
@click.option(
    "--project",
    default=DEFAULT_PROJECT,
    show_default=True,
    help="Project of the token; created if it does not exist.",
)
@click.option(
    "--scope",
    type=Choice(SCOPES),
    default="advise",
    show_default=True,
    help="What the token allows; each scope includes those before it.",
)
@click.option("--name", default="", help="What the token is for.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="Days until it expires. By default, never."
)
def token_create(
    data: str, database: str | None, project: str, scope: str, name: str, days: float | None
) -> None:
    """Create a token and print it. It is shown once and not stored."""
    check_service()
    from advisor.service.base.operators import operator_token

    echo(operator_token(ServiceSettings(Path(data), database), project, name or scope, scope, days).secret)


@token.command("list", epilog=examples("advisor token list", "advisor token list --data /srv/advisor"))
@where_options
def token_list(data: str, database: str | None) -> None:
    """List the tokens of all projects: id, project, scope and name, never their secrets."""
    check_service()
    from advisor.service.base.operators import operator_tokens

    for row in operator_tokens(ServiceSettings(Path(data), database)):
        state = "revoked" if row["revoked"] else "valid"
        echo(f"{row['id']}  {row['of']}  {row['scope']:6}  {state:7}  {row['name']}")


@token.command(
    "revoke",
    epilog=examples(
        "advisor token revoke tk_0123abcd", "advisor token revoke tk_0123abcd --data /srv/advisor"
    ),
)
@where_options
@click.argument("token_id")
def token_revoke(data: str, database: str | None, token_id: str) -> None:
    """Revoke a token. `advisor token list` shows its TOKEN_ID."""
    check_service()
    from advisor.service.base.operators import operator_revoke

    operator_revoke(ServiceSettings(Path(data), database), token_id)
    say(f"{token_id} is revoked")


@click.command(
    epilog=examples(
        "advisor mcp --server http://127.0.0.1:8571",
        "advisor mcp --server https://tuning.example.org --allow-code",
    )
)
@click.option(
    "--server",
    metavar="URL",
    default=f"http://127.0.0.1:{PORT}",
    show_default=True,
    help="The service behind the tools. Its token: ADVISOR_TOKEN.",
)
@click.option("--allow-code", is_flag=True, help="Let the assistant check your own module; this imports it.")
def mcp(server: str, allow_code: bool) -> None:
    """Serve tools for coding assistants (MCP) on stdin and stdout: recommend, why, what_if, ask, tell, ..."""
    check_service()
    from advisor.client import connect
    from advisor.service.assistants import serve_stdio

    serve_stdio(connect(server), allow_code=allow_code)
