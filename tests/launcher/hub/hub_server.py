"""A stand-in for the Hugging Face Hub: as much of its API as uploads by huggingface_hub 0.36 use.

with HubServer() as hub:
    ... HF_ENDPOINT=hub.url HF_TOKEN=hub.token ...
hub.files("user/model")["README.md"]
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

#: Files of these names go into the large file storage, as the hub decides for its repositories.
LARGE = (".safetensors", ".png")


#: What the hub wants metadata to be, of those that a card here may have.
KINDS = {
    "license": str, "license_name": str, "license_link": str, "library_name": str,
    "pipeline_tag": str, "base_model": str, "base_model_relation": str, "tags": list,
    "datasets": list, "instance_prompt": str, "inference": bool,
}  # fmt: skip


def metadata_errors(card):
    """What the hub would refuse in a card's metadata."""
    head, mark, _ = card.removeprefix("---\n").partition("\n---\n")
    head = yaml.safe_load(head) if mark else {}
    for name, value in head.items():
        if not isinstance(value, KINDS.get(name, ())):
            yield f"{name} may not be {value!r}"
        elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
            yield f"{name} holds something else than texts"
    if head.get("base_model_relation", "adapter") not in ("adapter", "finetune"):
        yield "there is no such relation"
    for name in [head.get("base_model"), *head.get("datasets", [])]:
        if name is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            yield f"{name} is no repository"
    if "license_link" in head and "://" not in head["license_link"]:
        yield "license_link is no address"


class HubServer:
    """The hub.

    Attributes:
        token: the one that is accepted.
        whoami: what it answers to who that is.
        repositories: by name: `private`, and its `commits`, each the files it brought.
        requests: method and path of each, in order.
        failures: by a pattern of `METHOD PATH`: an HTTP status, or `drop`; of one-time failures,
            a list, the next first.
        forbidden: owners whose repositories the token may not write to.
    """

    def __init__(self, token="hf_thisIsTheSecretToken1234"):
        self.token = token
        self.whoami = {
            "name": "user",
            "orgs": [{"name": "club", "roleInOrg": "write"}],
            "auth": {"accessToken": {"role": "write", "displayName": "here"}},
        }
        self.repositories = {}
        self.objects = {}
        self.requests = []
        self.failures = {}
        self.forbidden = set()
        self.received = threading.Event()

    def files(self, name):
        """The files of a repository after its last commit."""
        found = {}
        for commit in self.repositories[name]["commits"]:
            found |= commit
        return found

    def __enter__(self):
        server = self

        class Handler(_Handler):
            hub = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def _answer(self, method):
        hub = self.hub
        path = self.path.partition("?")[0]
        hub.requests.append(f"{method} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        failure = self._failure(f"{method} {path}")
        if failure == "drop":
            self.close_connection = True
            return
        if failure == "hang":
            hub.received.set()
            threading.Event().wait(30)
            return
        if failure is not None:
            self._send(failure, {"error": "made to fail"})
            return
        if method == "PUT":  # the large file storage, whose addresses are signed
            oid = path.rpartition("/")[2]
            if hashlib.sha256(body).hexdigest() != oid:
                self._send(400, {"error": "not the object that was announced"})
                return
            hub.objects[oid] = body
            self._send(200, {})
            return
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._send(401, {"error": "Invalid credentials in Authorization header"})
            return
        self._send(*self._api(method, path, json.loads(body) if self._is_json() else body))

    def _failure(self, request):
        for pattern, failure in self.hub.failures.items():
            if re.search(pattern, request):
                if isinstance(failure, list):
                    return failure.pop(0) if failure else None
                return failure
        return None

    def _is_json(self):
        kind = self.headers.get("Content-Type", "")
        return "json" in kind and "ndjson" not in kind

    def _api(self, method, path, body):
        hub = self.hub
        if path == "/api/whoami-v2":
            return 200, hub.whoami
        if path == "/api/validate-yaml":
            errors = [{"message": error} for error in metadata_errors(body["content"])]
            return 400 if errors else 200, {"errors": errors, "warnings": []}
        if path == "/api/repos/create":
            name = f"{body.get('organization') or hub.whoami['name']}/{body['name']}"
            url = f"{hub.url}/{name}"
            if name.partition("/")[0] in hub.forbidden:
                return 403, {"error": "You don't have the rights to create a model here"}
            if name in hub.repositories:
                return 409, {"error": "You already created this model repo", "url": url}
            hub.repositories[name] = {"private": body.get("private", False), "commits": []}
            return 200, {"url": url, "name": name}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/main)?", path):
            if match[1] not in hub.repositories:
                return 404, {"error": "Repository not found"}
            about = hub.repositories[match[1]]
            sha = "c" * 40
            return 200, {"id": match[1], "private": about["private"], "sha": sha, "siblings": []}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return 200, {"files": [self._mode(match[1], file) for file in body["files"]]}
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return 200, {"transfer": "basic", "objects": [self._lfs(o) for o in body["objects"]]}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(match[1], body)
        return 404, {"error": f"the stand-in has no {method} {path}"}

    def _mode(self, name, file):
        present = self.hub.files(name).get(file["path"])
        is_large = file["path"].endswith(LARGE)
        oid = None
        if present is not None:
            header = b"blob %d\0" % len(present)
            regular = hashlib.sha1(header + present).hexdigest()
            oid = hashlib.sha256(present).hexdigest() if is_large else regular
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _lfs(self, wanted):
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in self.hub.objects:
            href = f"{self.hub.url}/storage/{wanted['oid']}?X-Amz-Signature=signed"
            answer["actions"] = {"upload": {"href": href}}
        return answer

    def _commit(self, name, body):
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return 400, {"error": f"{value['path']} was not uploaded"}
                files[value["path"]] = self.hub.objects[value["oid"]]
        self.hub.repositories[name]["commits"].append(files)
        oid = "c" * 40
        return 200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid}

    def _send(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
