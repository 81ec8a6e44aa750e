"""Models from a hub: a small one of our own on this machine, and the words where there is none."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from sdft.errors import EnvironmentFault, UserError
from sdft.events import Notice, ignore
from sdft.labelers.download import RemoteFile, download
from sdft.labelers.hub import NOTE, find_model, is_whole

FILES = {
    "model.onnx": b"m" * 300_000,
    "selected_tags.csv": b"tag_id,name,category,count\n",
    "keras_model.h5": b"k" * 50,
    "inner/model_optimized.onnx": b"o" * 70,
    "inner/tag_mapping.json": b"{}",
}
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as the client asks for one public model."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list] = []
    broken_after = None
    """Bytes after which the connection is closed."""
    refuse_after = None
    """Answers with content after which every connection is closed at once."""
    address = ""

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body):
        type(self).requests.append((self.command, self.path, self.headers.get("Range")))
        path = self.path.split("?")[0]
        if path.startswith("/api/models/owner/gated"):
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
        elif path.startswith("/api/models/owner/tagger"):
            siblings = [{"rfilename": n, "size": len(c), "blobId": "x"} for n, c in FILES.items()]
            content = FILES["model.onnx"]
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            siblings[0]["lfs"] = lfs | {"pointerSize": 100}
            record = {"id": "owner/tagger", "sha": REVISION, "siblings": siblings}
            record |= {"cardData": {"license": "apache-2.0"}, "tags": [], "private": False}
            self._send(200, json.dumps(record).encode(), {}, with_body)
        elif path.startswith(f"/owner/tagger/resolve/{REVISION}/"):
            self._send_file(FILES[path.split("/", 5)[5]], with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)

    def _send_file(self, content, with_body):
        kind = type(self)
        if kind.refuse_after is not None:
            kind.refuse_after -= 1
            if kind.refuse_after < 0:
                self.close_connection = True
                return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        part = content[int(start or 0) :]
        if int(start or 0):
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        limit = type(self).broken_after
        if limit is not None and with_body and len(part) > limit:
            self.send_response(206 if int(start or 0) else 200)
            for name, value in {**headers, "Content-Length": str(len(part))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(part[:limit])
            self.close_connection = True
            return
        self._send(206 if int(start or 0) else 200, part, headers, with_body)

    def _send(self, status, body, headers, with_body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    Hub.requests, Hub.broken_after, Hub.refuse_after = [], None, None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("sdft.labelers.download.PAUSE_S", 0.0)
    Hub.address = endpoint
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


PATTERNS = ("*.onnx", "selected_tags.csv", "tag_mapping.json")


def find(model, folder, **options):
    return find_model(model, model_dir=folder, patterns=PATTERNS, **{"emit": ignore} | options)


def test_a_model_is_downloaded_once_with_size_licence_and_folder_shown(hub, tmp_path):
    events = []
    folder = find("owner/tagger", tmp_path, emit=events.append)
    assert folder == tmp_path / "owner_tagger"
    assert (folder / "model.onnx").read_bytes() == FILES["model.onnx"]
    assert not (folder / "keras_model.h5").exists()
    (notice,) = [event for event in events if isinstance(event, Notice)]
    for words in ("owner/tagger", "300 kB", "apache-2.0", str(folder)):
        assert words in notice.message
    hub.requests.clear()
    assert find("owner/tagger", tmp_path) == folder
    assert hub.requests == []
    find("owner/tagger", tmp_path, force_download=True)
    assert any("model.onnx" in path for _, path, _ in hub.requests)


def test_a_folder_of_a_repository_is_downloaded_alone(hub, tmp_path):
    folder = find("owner/tagger/inner", tmp_path)
    assert folder == tmp_path / "owner_tagger" / "inner"
    assert (folder / "tag_mapping.json").read_bytes() == b"{}"
    assert not (tmp_path / "owner_tagger" / "model.onnx").exists()


def test_a_download_that_broke_off_is_recognised_and_goes_on(hub, tmp_path):
    folder = tmp_path / "owner_tagger"
    hub.broken_after = 100_000
    hub.refuse_after = 2
    with pytest.raises(EnvironmentFault, match="broke off at byte 200000"):
        find("owner/tagger", tmp_path)
    assert (folder / NOTE).is_file()
    assert not is_whole(folder)
    assert not (folder / "model.onnx").exists()
    hub.broken_after, hub.refuse_after = None, None
    hub.requests.clear()
    assert find("owner/tagger", tmp_path) == folder
    assert (folder / "model.onnx").read_bytes() == FILES["model.onnx"]
    assert is_whole(folder)
    assert [ranged for _, path, ranged in hub.requests if "model.onnx" in path] == ["bytes=200000-"]
    assert not list(folder.rglob("*.part-*"))


def test_a_connection_that_breaks_is_tried_again_from_where_it_broke(hub, tmp_path):
    hub.broken_after = 100_000
    find("owner/tagger", tmp_path)
    ranges = [ranged for _, path, ranged in hub.requests if path.endswith("/model.onnx")]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_other_content_than_the_hub_described_is_refused(hub, tmp_path, monkeypatch):
    right = FILES["model.onnx"]
    find("owner/tagger/inner", tmp_path)
    described = hashlib.sha256(right).hexdigest()
    remote = RemoteFile(
        url=f"{hub.address}/owner/tagger/resolve/{REVISION}/keras_model.h5",
        num_bytes=50,
        sha256=described,
        version="1",
    )
    with pytest.raises(EnvironmentFault, match="not the file that the server described"):
        download(remote, tmp_path / "x", headers={}, received=lambda num_bytes: None)
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob("x*"))


def test_a_file_that_was_cut_is_downloaded_again(hub, tmp_path):
    folder = find("owner/tagger", tmp_path)
    (folder / "model.onnx").write_bytes(b"m" * 10)
    assert not is_whole(folder)
    find("owner/tagger", tmp_path)
    assert (folder / "model.onnx").read_bytes() == FILES["model.onnx"]


def test_what_the_hub_does_not_give_is_said(hub, tmp_path):
    with pytest.raises(UserError, match="no such public model"):
        find("owner/absent", tmp_path)
    with pytest.raises(EnvironmentFault, match="agreed to its terms"):
        find("owner/gated", tmp_path)
    with pytest.raises(UserError, match="nothing in it can be used"):
        find("owner/tagger/elsewhere", tmp_path)


def test_no_network_is_an_error_with_the_way_around_it(tmp_path):
    with pytest.raises(EnvironmentFault, match="cannot be reached") as error:
        find("owner/tagger", tmp_path)
    assert "copy the folder here" in str(error.value)


def test_a_folder_that_another_program_filled_is_used_where_there_is_no_network(tmp_path):
    folder = tmp_path / "owner_tagger"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"m")
    events = []
    assert find("owner/tagger", tmp_path, emit=events.append) == folder
    assert "cannot be reached to check it" in events[0].message
    # One whose download is known to have broken off is not.
    (folder / NOTE).write_text('{"files": {"model.onnx": 2}}')
    with pytest.raises(EnvironmentFault, match="cannot be reached"):
        find("owner/tagger", tmp_path)


def test_names_that_are_neither_path_nor_id_are_said(tmp_path):
    for name in ("tagger", "../absent/folder", "C:\\models\\absent"):
        with pytest.raises(UserError, match="neither a folder"):
            find(name, tmp_path)
    (tmp_path / "here").mkdir()
    assert find(str(tmp_path / "here"), tmp_path) == tmp_path / "here"
