"""A stand-in for a model hub: the part of its HTTP interface that publishing and fetching of small files needs."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "secret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by name, their files by path, and the requests that it did not know."""

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.unknown: list[str] = []

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        """Answer a request that changes something."""
        if path == "/api/repos/create":
            content = json.loads(body)
            name = f"{content.get('organization') or 'me'}/{content['name']}"
            self.repositories.setdefault(name, {})
            return 200, {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if found := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)/preupload/main", path):
            files = json.loads(body)["files"]
            listed = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return 200, {"files": listed}
        if found := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)/commit/main", path):
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    content = base64.b64decode(item["value"]["content"])
                    self.repositories[found[1]][item["value"]["path"]] = content
            return 200, {"commitUrl": f"{self.url}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT}
        self.unknown.append(f"POST {path}")
        return 404, {"error": "unknown"}

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        """Answer a request that reads."""
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "me", "auth": {}}, {}
        if found := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)(?:/revision/\w+)?", path):
            if found[1] not in self.repositories:
                return 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"}
            siblings = [{"rfilename": name} for name in self.repositories[found[1]]]
            return 200, {"id": found[1], "modelId": found[1], "sha": COMMIT, "siblings": siblings, "tags": []}, {}
        if found := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)/tree/\w+", path):
            files = self.repositories[found[1]].items()
            listed = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files]
            return 200, listed, {}
        if found := re.fullmatch(r"/([\w-]+/[\w-]+)/resolve/\w+/(.+)", path):
            content = self.repositories.get(found[1], {}).get(found[2])
            if content is None:
                return 404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"}
            tag = hashlib.sha256(content).hexdigest()
            return 200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}
        if path in ("/", "/api/agent-harnesses"):  # whether it is there, and what the client asks of itself
            return 200, {}, {}
        self.unknown.append(f"GET {path}")
        return 404, {"error": "unknown"}, {}


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on a port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(*hub.get(self._path()))

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(401, {"error": "no token"}, {})
                return
            self._answer(*hub.post(self._path(), body), {})

        def _path(self) -> str:
            return self.path.partition("?")[0]

        def _answer(self, status: int, content: Any, headers: dict[str, str]) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
