"""MCP: the tools at /mcp and over stdio, driven by the official SDK's client."""

import asyncio
import os
import sys

import httpx2
import pytest
import serving
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

SPACE = "format: 1\nparameters:\n  x: {type: float, low: -1.0, high: 1.0, default: 0.5}\n"
TOOLS = {"why", "what_if", "report_summary", "start_study", "ask", "report", "tell", "status", "recommend"}
MOST_CHARACTERS = 4_000


async def use(client, name, **arguments):
    answer = await client.call_tool(name, arguments)
    text = answer.content[0].text if answer.content else ""
    assert not answer.is_error, text
    assert sum(len(part.text) for part in answer.content) < MOST_CHARACTERS
    content = answer.structured_content
    return content.get("result", content) if content else text


async def whole_way(client, **given):
    """From a recommendation to a finished study."""
    tools = {tool.name: tool.description for tool in (await client.list_tools()).tools}
    assert set(tools) >= TOOLS and all(len(text) < 130 for text in tools.values())
    advised = await use(client, "recommend", **given)
    number = advised["recommendation"]
    assert advised["configuration"]["learning_rate"] > 0
    assert "width is" in str(await use(client, "why", recommendation=number, parameter="width"))
    assert "->" in str(await use(client, "what_if", recommendation=number, facts={"rows": 10**6}))
    assert "width" in (await use(client, "report_summary", recommendation=number))["configuration"]
    study = (await use(client, "start_study", space=SPACE, trials=2))["study"]
    first = await use(client, "ask", study=study)
    said = await use(client, "report", study=study, number=first["number"], epoch=1, loss=0.5)
    assert said["stop"] is False
    assert (await use(client, "tell", study=study, number=first["number"], value=0.5))["state"] == "complete"
    second = await use(client, "ask", study=study)
    assert (await use(client, "tell", study=study, number=second["number"], error="x"))["state"] == "failed"
    assert (await use(client, "ask", study=study))["state"] == "finished"
    standing = await use(client, "status", study=study)
    assert (standing["state"], standing["best"]["value"]) == ("finished", 0.5)
    refused = await client.call_tool("why", {"recommendation": "rc_0", "parameter": "width"})
    assert refused.is_error and "no such recommendation" in refused.content[0].text


def test_the_tools_need_a_token(client):
    answer = client.post("/mcp", json={}, headers={"Authorization": "Bearer adv_x_y"})
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.slow
def test_over_http_and_stdio(tmp_path):
    with serving.serving(tmp_path, scope="advise") as server:
        dataset = server.upload("d.csv", serving.ROWS.encode())
        (tmp_path / "d.csv").write_text(serving.ROWS)

        async def over_http():
            words = {"Authorization": f"Bearer {server.token}"}
            async with (
                httpx2.AsyncClient(headers=words, timeout=60) as http,
                Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
            ):
                await whole_way(client, dataset=dataset, target="y")

        async def over_stdio():
            environment = {**os.environ, "ADVISOR_TOKEN": server.token}
            words = ["-m", "advisor", "mcp", "--server", server.url]
            program = StdioServerParameters(command=sys.executable, args=words, env=environment)
            async with Client(stdio_client(program)) as client:
                await whole_way(client, data=str(tmp_path / "d.csv"), target="y")
                assert "check_module" not in {tool.name for tool in (await client.list_tools()).tools}

        asyncio.run(over_http())
        asyncio.run(over_stdio())
