"""Uploads, to a small hub of our own on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from huggingface_hub import constants

from sdft.events import CheckpointSaved, StateSaved
from sdft.views.uploads import Uploads, UploadWishes

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a client asks for to make a repository and add small files."""

    protocol_version = "HTTP/1.1"
    made: ClassVar[list] = []
    files: ClassVar[dict] = {}
    tokens: ClassVar[set] = set()
    refuses: ClassVar[bool] = False

    def do_GET(self):
        self.answer({"siblings": [], "id": "someone/cats", "sha": COMMIT})

    def do_POST(self):
        kind = type(self)
        body = self.body()
        home = f"http://{self.headers['Host']}/someone/cats"
        kind.tokens.add(self.headers.get("Authorization"))
        if kind.refuses:
            self.answer({"error": "no right to write here"}, status=403)
        elif self.path.startswith("/api/repos/create"):
            kind.made.append(json.loads(body))
            self.answer({"url": home, "id": "1"})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    kind.files[value["path"]] = base64.b64decode(value["content"])
            commit = {"commitUrl": f"{home}/commit/{COMMIT}", "commitOid": COMMIT}
            self.answer(commit | {"success": True})
        else:
            self.answer({"url": "http://x", "validate": True, "message": ""})

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, value, status=200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    Hub.made, Hub.files, Hub.tokens, Hub.refuses = [], {}, set(), False
    yield Hub
    server.shutdown()
    server.server_close()


def is_private(made):
    """Tell what was asked for; releases of the client say it in two ways."""
    return made.get("private", made.get("visibility") == "private")


def sent(wishes, *events):
    """Return what was said about the events' files."""
    said = []
    uploads = Uploads(wishes)
    uploads.report_to(said.append)
    for event in events:
        uploads(0.0, event)
    uploads.finish()
    return said


def saved(path):
    return CheckpointSaved(step=1, epoch=1, path=str(path), size_bytes=3, duration_s=0.1)


def state_saved(path):
    return StateSaved(step=1, epoch=1, path=str(path), size_bytes=3, duration_s=0.1)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "cats-000001.safetensors"
    path.write_bytes(b"abc")
    return path


def test_checkpoints_and_states_are_sent_to_the_folder_named(hub, checkpoint, tmp_path):
    state = tmp_path / "step00000001"
    state.mkdir()
    (state / "unet.safetensors").write_bytes(b"def")
    wishes = UploadWishes(repo_id="someone/cats", path_in_repo="sd/", states=True)
    said = sent(wishes, saved(checkpoint), state_saved(state))
    assert [one.severity for one in said] == ["info", "info"], said
    assert hub.files == {
        "sd/cats-000001.safetensors": b"abc",
        "sd/step00000001/unet.safetensors": b"def",
    }
    assert {is_private(made) for made in hub.made} == {True}
    assert hub.tokens == {"Bearer hf_secret"}


def test_states_stay_here_and_repositories_are_public_as_asked(hub, checkpoint, tmp_path):
    wishes = UploadWishes(repo_id="someone/cats", is_public=True)
    sent(wishes, saved(checkpoint), state_saved(tmp_path))
    assert list(hub.files) == ["cats-000001.safetensors"]
    assert not is_private(hub.made[0])


def test_a_hub_that_refuses_is_said_in_one_line_and_ends_nothing(hub, checkpoint):
    hub.refuses = True
    (notice,) = sent(UploadWishes(repo_id="someone/cats"), saved(checkpoint))
    assert (notice.severity, notice.topic) == ("warning", "upload")
    assert "was not sent to someone/cats/cats-000001.safetensors" in notice.message
    assert "\n" not in notice.message
    assert "hf_secret" not in notice.message


def test_a_hub_that_cannot_be_reached_ends_nothing(hub, checkpoint, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (notice,) = sent(UploadWishes(repo_id="someone/cats"), saved(checkpoint))
    assert notice.severity == "warning"


def test_nothing_is_sent_where_nobody_asked(hub, checkpoint):
    assert sent(None, saved(checkpoint)) == []
    assert hub.made == []
