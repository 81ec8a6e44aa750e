"""The dashboard in a browser: on this machine alone, for who has the link."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sdft.shell import shell_line
from sdft.tui.web import COOKIE
from tests.tui.recorder import example_run

pytest.importorskip("textual_serve", reason="the web extra is not installed")

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Give port and token of a dashboard that is served."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = example_run(tmp_path / "cats [red] 'x'.run", steps_done=100).path
    server = subprocess.Popen(
        [sys.executable, "-m", "sdft", "watch", "--web", "--port", str(port), str(run)],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert server.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=(\S+)", server.stderr.readline())
        assert found is not None
        # What it says later must not fill the pipe.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, found[1]
    finally:
        server.terminate()
        server.wait(timeout=120)
        for pipe in (server.stdout, server.stderr):
            assert pipe is not None
            pipe.close()


def get(port: int, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(
        "GET", path, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def websocket_greets(port: int, token: str) -> bool:
    """Tell whether the dashboard's screen comes over a websocket opened with the cookie."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as line:
        line.sendall(
            f"GET /ws?width=80&height=24 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n"
            f"Cookie: {COOKIE}={token}\r\n\r\n".encode()
        )
        received = b""
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s:
            piece = line.recv(65536)
            received += piece
            if b"running" in received or not piece:
                break
    return b"101 Switching" in received and b"running" in received


def test_only_the_link_opens_the_page_and_nothing_is_loaded_from_elsewhere(
    served: tuple[int, str],
) -> None:
    port, token = served
    for path in ("/", "/?token=", "/?token=x", "/ws", "/static/js/textual.js", "/?token=%C3%A9"):
        assert get(port, path).status == 403, path
    assert get(port, f"/?token={token}", Host="evil.example").status == 403
    page = get(port, f"/?token={token}")
    assert page.status == 200
    assert "default-src 'self'" in (page.headers["Content-Security-Policy"] or "")
    cookie = page.headers["Set-Cookie"] or ""
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert get(port, "/static/js/textual.js", Cookie=f"{COOKIE}={token}").status == 200
    assert websocket_greets(port, token)


def test_it_listens_on_the_loopback_address_only(served: tuple[int, str]) -> None:
    port, _ = served
    mine = psutil.Process().children(recursive=True)
    listening = {
        connection.laddr.ip
        for process in mine
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


def test_paths_reach_the_shell_as_one_word() -> None:
    assert shell_line(["python", "a b; rm x"]) in ("python 'a b; rm x'", 'python "a b; rm x"')
