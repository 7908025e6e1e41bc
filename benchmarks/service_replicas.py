"""Two servers on one PostgreSQL against one: trials a second, and what each part costs of the processor.

    python benchmarks/service_replicas.py [SECONDS]

CLIENTS processes ask and tell without a pause, each in a study of its own with 100 finished trials; with two
servers every other study is at the second one, as a load balancer that hashes the study's id would send them.
Python serves with one core a server, so on a machine of two cores the clients and the database share with two
servers what they had for themselves beside one. Therefore the second ratio: what the servers could do with a
core each, from the processor seconds that a trial takes of them.
"""

from __future__ import annotations

import sys

import service
from service import PostgreSQL, Rate, Server, ask_ours, together

FINISHED, SECONDS = 104, 20.0
service.CLIENTS = 8


def measured(database: PostgreSQL, replicas: int, seconds: float) -> Rate:
    from advisor.client import connect

    options = ("--database", database.url())
    servers = [Server(*options)]
    try:
        servers += [Server(*options, folder=servers[0].folder) for _ in range(replicas - 1)]
        studies = [servers[number % replicas].study(100_000, FINISHED) for number in range(service.CLIENTS)]
        own = [connect(server.url, server.token) for server in servers]

        def done() -> int:
            return sum(
                own[number % replicas].request("GET", f"/v1/studies/{study}")["done"]
                for number, study in enumerate(studies)
            )

        def arguments(number: int) -> tuple[str, str, str]:
            server = servers[number % replicas]
            return server.url, server.token, studies[number]

        pids = [server.process.pid for server in servers]
        return together(ask_ours, arguments, done, pids, seconds)
    finally:
        for server in servers:
            server.close()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    database = PostgreSQL()
    try:
        one, two = (measured(database, replicas, seconds) for replicas in (1, 2))
    finally:
        database.stop()
    print(f"one server: {one}\ntwo servers: {two}")
    print(f"ratio of trials a second {two.trials / one.trials:.2f}", end=", ")
    print(f"of what the servers could do with a core each {2 * one.server / two.server:.2f}")


if __name__ == "__main__":
    main()
