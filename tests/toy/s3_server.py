"""An S3-speaking server on this machine that counts what it is asked for and fails on purpose."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

ACCOUNT = "123456789012"
BUCKET = "pictures"


class S3Server:
    """The WSGI application: moto's, with a counter and faults in front."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: Counter[str] = Counter()
        """By `LIST`, or by method and key: `GET cats/1.png`."""
        self.faults: dict[str, int] = {}
        """How often a request for a key ends in a 503 before it is answered."""
        self.forbidden = ""
        """Text of an answer that refuses everything; empty where nothing is refused."""
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def put(self, key: str, content: bytes) -> None:
        backend = s3_backends[ACCOUNT]["aws"]
        if BUCKET not in backend.buckets:
            backend.create_bucket(BUCKET, "us-east-1")
        backend.put_object(BUCKET, key, content)

    def contents(self) -> dict[str, bytes]:
        """Return all that is stored, by key."""
        objects = s3_backends[ACCOUNT]["aws"].buckets[BUCKET].keys
        return {key: bytes(one.value) for key, one in objects.items()}

    def holds(self, key: str) -> bool:
        """Tell whether there is an object, also while others come and go."""
        buckets = s3_backends[ACCOUNT]["aws"].buckets
        return BUCKET in buckets and key in buckets[BUCKET].keys

    def clear(self) -> None:
        s3_backends[ACCOUNT]["aws"].reset()
        self.asked.clear()
        self.faults.clear()
        self.forbidden = ""

    @property
    def num_lists(self) -> int:
        return self.asked["LIST"]

    @property
    def num_reads(self) -> int:
        return sum(count for name, count in self.asked.items() if name.startswith("GET "))

    @property
    def num_requests(self) -> int:
        return sum(self.asked.values())

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        key = environ["PATH_INFO"].removeprefix(f"/{BUCKET}").strip("/")
        is_list = "list-type" in environ.get("QUERY_STRING", "")
        with self._lock:
            self.asked["LIST" if is_list else f"{environ['REQUEST_METHOD']} {key}"] += 1
            fails = self.faults.get(key, 0) > 0
            if fails:
                self.faults[key] -= 1
        if fails:
            return _refuse(start_response, "503 Service Unavailable", "SlowDown", "too many")
        if self.forbidden:
            return _refuse(start_response, "403 Forbidden", "InvalidAccessKeyId", self.forbidden)
        return self._app(environ, start_response)


def _refuse(
    start_response: Callable[..., Any], status: str, code: str, message: str
) -> Iterable[bytes]:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    start_response(
        status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    )
    return [body]


@contextmanager
def serving() -> Iterator[S3Server]:
    app = S3Server()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    app.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield app
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
