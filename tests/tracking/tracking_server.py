"""A stand-in for W&B's service on loopback: it speaks what the client needs, and keeps what it is told.

It answers the GraphQL operations of runs, alerts and artifacts, takes the stream of history and summary, and stores
uploads. An operation that it does not know gets an error, is noted in ``unknown``, and so shows what is missing here.
"""

import base64
import hashlib
import json
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"


@dataclass
class ServedRun:
    """One run as the service has it, after all that any client has said of it."""

    name: str
    project: str
    config: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    exit_code: int | None = None
    files: set[str] = field(default_factory=set)
    used: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows, in the order of their lines."""
        found = self.lines.get("wandb-history.jsonl", {})
        return [json.loads(found[number]) for number in sorted(found)]

    @property
    def summary(self) -> dict[str, Any]:
        """Its newest summary."""
        found = self.lines.get("wandb-summary.json", {})
        return dict(json.loads(found[max(found)])) if found else {}

    def values(self, key: str) -> list[Any]:
        """What a curve shows."""
        return [row[key] for row in self.history if key in row]


class WandbServer:
    """What the service has: runs by their id, alerts, artifacts by name, uploads by path, and unknown operations."""

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, ServedRun] = {}
        self.alerts: list[dict[str, Any]] = []
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.errors: list[str] = []
        self.operations: list[str] = []
        self._lock = threading.Lock()

    def graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one operation."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        name = found[1] if found else "viewer"
        with self._lock:
            self.operations.append(name)
            answer = getattr(self, "_" + re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower(), None)
            if answer is None:
                self.unknown.append(name)
                return {"errors": [{"message": f"the stand-in does not know {name}"}], "data": None}
            return {"data": answer(request.get("variables") or {})}

    def stream(self, run: str, body: dict[str, Any]) -> None:
        """Take a part of a run's history, summary and end."""
        with self._lock:
            served = self.runs[run]
            for name, part in (body.get("files") or {}).items():
                lines = served.lines.setdefault(name, {})
                lines.update(enumerate(part["content"], start=part["offset"]))
            if body.get("complete"):
                served.exit_code = body["exitcode"]

    def _viewer(self, variables: dict[str, Any]) -> Any:
        person = {"id": "u1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "admin": False}
        return {"viewer": {**person, "teams": {"edges": []}}}

    def _server_features_query(self, variables: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _run_resume_status(self, variables: dict[str, Any]) -> Any:
        run = self.runs.get(variables["name"])
        bucket = self._resumed(run) if run else None
        return {"model": {"id": "p1", "name": variables["project"], "entity": self._entity(), "bucket": bucket}}

    def _resumed(self, run: ServedRun) -> dict[str, Any]:
        lines = {name: run.lines.get(f"wandb-{name}.jsonl", {}) for name in ("history", "events")}
        tails = {f"{name}Tail": json.dumps([part[max(part)]] if part else []) for name, part in lines.items()}
        counts = {f"{name}LineCount": len(part) for name, part in lines.items()}
        return {
            **self._bucket(run),
            **tails,
            **counts,
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "tags": run.fields.get("tags") or [],
            "notes": run.fields.get("notes"),
            "wandbConfig": json.dumps({"t": {}}),  # a run without it has not begun
        }

    def _upsert_bucket(self, variables: dict[str, Any]) -> Any:
        name = variables["name"] or next(run.name for run in self.runs.values() if f"id-{run.name}" == variables["id"])
        inserted = name not in self.runs
        run = self.runs.setdefault(name, ServedRun(name, variables.get("project") or ""))
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        if variables.get("config"):
            run.config = {key: item["value"] for key, item in json.loads(variables["config"]).items()}
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _bucket(self, run: ServedRun) -> dict[str, Any]:
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.fields.get("displayName") or run.name,
            "description": "",
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "sweepName": None,
            "project": {"id": "p1", "name": run.project, "entity": self._entity()},
            "historyLineCount": 0,  # above 0 for forks alone: a client that does not resume overwrites
        }

    @staticmethod
    def _entity() -> dict[str, str]:
        return {"id": "e1", "name": ENTITY}

    def _create_run_files(self, variables: dict[str, Any]) -> Any:
        run = variables["run"]
        self.runs[run].files |= set(variables["files"])
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{run}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": f"id-{run}", "uploadHeaders": [], "files": files}}

    def _mark_run_files_uploaded(self, variables: dict[str, Any]) -> Any:
        return {"markRunFilesUploaded": {"success": True}}

    def _notify_scriptable_run_alert(self, variables: dict[str, Any]) -> Any:
        self.alerts.append(variables)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _create_artifact(self, variables: dict[str, Any]) -> Any:
        given = variables["input"]
        name = given["artifactCollectionName"]
        self.artifacts[name] = {**given, "id": f"artifact-{name}", "state": "PENDING"}
        if given.get("runName"):  # a dataset is made first, and linked to its run by UseArtifact
            self.runs[given["runName"]].logged.append(name)
        return {"createArtifact": {"artifact": self._artifact(name)}}

    def _artifact(self, name: str) -> dict[str, Any]:
        kept = self.artifacts[name]
        return {"id": kept["id"], "state": kept["state"], "artifactSequence": {"latestArtifact": None}}

    def _create_artifact_manifest(self, variables: dict[str, Any]) -> Any:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(variables["artifactID"])}}

    def _update_artifact_manifest(self, variables: dict[str, Any]) -> Any:
        identifier = variables["artifactManifestID"].removeprefix("manifest-")
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(identifier)}}

    def _manifest(self, artifact: str) -> dict[str, Any]:
        file = {"id": "f1", "uploadUrl": f"{self.url}/storage/{artifact}/manifest.json", "uploadHeaders": []}
        return {"id": f"manifest-{artifact}", "file": file}

    def _create_artifact_files(self, variables: dict[str, Any]) -> Any:
        edges = []
        for item in variables["input"]["artifactFiles"]:
            path = f"{item['artifactID']}/{item['name']}"
            node = {"storagePath": path, "uploadUrl": f"{self.url}/storage/{path}", "uploadHeaders": []}
            edges.append({"node": {**node, "uploadMultipartUrls": None, "artifact": {"id": item["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit_artifact(self, variables: dict[str, Any]) -> Any:
        kept = next(item for item in self.artifacts.values() if item["id"] == variables["artifactID"])
        kept["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": kept["id"], "digest": kept["digest"]}}}

    def _artifact_by_i_d(self, variables: dict[str, Any]) -> Any:
        name = variables["id"].removeprefix("artifact-")
        kept = self.artifacts[name]
        project = {"id": "p1", "internalId": "1", "name": kept["projectName"], "entity": {"name": ENTITY}}
        return {
            "artifact": {
                **dict.fromkeys(("description", "commitHash", "updatedAt", "historyStep")),
                **{key: kept[key] for key in ("id", "state", "digest", "metadata")},
                "__typename": "Artifact",
                "artifactSequence": {"__typename": "ArtifactSequence", "name": name, "project": project},
                "versionIndex": 0,
                "ttlDurationSeconds": -1,
                "artifactType": {"name": kept["artifactTypeName"]},
                "ttlIsInherited": False,
                "tags": [],
                "size": 1,
                "digestAlgorithm": "MANIFEST_MD5",
                "fileCount": 1,
                "createdAt": "2026-01-01T00:00:00Z",
                "aliases": [],
            }
        }

    def _use_artifact(self, variables: dict[str, Any]) -> Any:
        given = variables["input"]
        self.runs[given["runName"]].used.append(given["artifactID"].removeprefix("artifact-"))
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serve as long as the block lasts."""
    service = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            if self.path.endswith("/file_stream"):
                service.stream(self.path.split("/")[-2], json.loads(body))
                self._answer({})
            else:  # the rest is the client's telemetry
                self._answer(service.graphql(json.loads(body)) if self.path == "/graphql" else {})

        def do_PUT(self) -> None:
            content = self._body()
            service.uploads[self.path.removeprefix("/storage/")] = content
            self._answer({}, {"ETag": base64.b64encode(hashlib.md5(content).digest()).decode()})

        def do_GET(self) -> None:
            self._answer({})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, answer: object, headers: dict[str, str] | None = None) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that ends hangs up
                service.errors.append(traceback.format_exc())

    with Server(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        service.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield service
        http.shutdown()
