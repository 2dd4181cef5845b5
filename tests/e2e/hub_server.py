"""Servers that a model can be pulled from, on 127.0.0.1: a Hub with Hugging Face's API, ModelScope's
REST API, git over HTTP with the LFS batch API, and an Ollama registry. Large files lie at a second
origin, the CDN, behind signed links that end; it can be slow, and it can be broken on purpose.

The real clients (huggingface_hub, git-lfs) pull from it too, which keeps it honest."""

import base64
import dataclasses
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import threading
import time
import urllib.parse

GIT_BACKEND = "/usr/lib/git-core/git-http-backend"
SECRET = b"a signature of the tests"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclasses.dataclass
class Repository:
    """Files by path. Those that end in .gguf or .bin are large: LFS has them."""

    files: dict
    private: bool = False
    gated: bool = False
    listed: list = None  # what the list says in place of the truth

    @property
    def commit(self):
        text = "".join(f"{path} {sha256(data)}\n" for path, data in sorted(self.files.items()))
        return hashlib.sha1(text.encode()).hexdigest()


def is_large(path):
    return path.endswith((".gguf", ".bin"))


class Hub:
    """State and counters of all the servers; use it with `with`."""

    def __init__(self, git_root=None):
        self.repositories = {}  # "org/name" -> Repository
        self.blobs = {}  # sha256 -> bytes, what the CDN has
        self.manifests = {}  # "ns/model:tag" -> bytes
        self.git_root = git_root
        self.token = "hub-token"
        self.registry_token = None  # the Ollama registry asks for a token
        self.git_user = None  # "user:password", asked for by git and LFS
        self.lfs_max_batch = 2
        self.lfs_missing = set()
        self.page_size = 3
        self.link_life = 3600  # seconds that a signed link is good for
        self.rate = None  # bytes a second and connection
        self.faults = []  # popped by CDN answers that send bytes: "cut", "flip", "500", "403", ...
        self.hub_redirect = None  # where resolve redirects to, whatever is asked
        self.cdn_bytes = 0
        self.n_links = 0
        self.n_batches = 0
        self.requests = []
        self.lock = threading.Lock()
        self.servers = []

    def __enter__(self):
        self.hub = self._start(HubHandler)
        self.cdn = self._start(CdnHandler)
        self.side = self._start(HubHandler)
        self.url = f"http://127.0.0.1:{self.hub.server_port}"
        # The same at another port, which is no hub's endpoint: for git and registries.
        self.side_host = f"127.0.0.1:{self.side.server_port}"
        self.side_url = f"http://{self.side_host}"
        self.cdn_url = f"http://127.0.0.1:{self.cdn.server_port}"
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def _start(self, handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.state = self
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def add(self, name, files, **keywords):
        repository = Repository(files, **keywords)
        self.repositories[name] = repository
        for path, data in files.items():
            if is_large(path):
                self.add_blob(data)
        return repository

    def add_blob(self, data):
        self.blobs[sha256(data)] = data
        return sha256(data)

    def add_ollama(self, name, layers, config=b'{"model_format":"gguf","model_family":"llama"}'):
        """`layers`: (kind, bytes); returns the manifest's bytes."""
        entry = lambda media, data: {"mediaType": media, "digest": "sha256:" + self.add_blob(data),
                                     "size": len(data)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": entry("application/vnd.docker.container.image.v1+json", config),
            "layers": [entry(f"application/vnd.ollama.image.{kind}", data) for kind, data in layers],
        }
        self.manifests[name] = json.dumps(manifest).encode()
        return self.manifests[name]

    def link(self, digest):
        """A signed link to a blob, as a storage server makes them."""
        with self.lock:
            self.n_links += 1
        expires = time.time() + self.link_life
        signature = hmac.new(SECRET, f"{digest} {expires}".encode(), "sha256").hexdigest()
        # "Expires" in whole seconds is for clients to read; the exact time is what counts here.
        return (f"{self.cdn_url}/{digest}?Expires={int(expires + 1)}&Exact={expires}"
                f"&Signature={signature}")

    def take_fault(self):
        with self.lock:
            return self.faults.pop(0) if self.faults else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def state(self):
        return self.server.state

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def answer(self, status, body=b"", headers=()):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


class CdnHandler(Handler):
    """Blobs behind signed links."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        state = self.state
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        digest = url.path[1:]
        exact = query.get("Exact", "0")
        good = hmac.new(SECRET, f"{digest} {exact}".encode(), "sha256").hexdigest()
        if query.get("Signature") != good or float(exact) < time.time():
            return self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        # Storage refuses what it did not ask for, and a token here would be a leak.
        if "Authorization" in self.headers or "Cookie" in self.headers:
            return self.answer(400, b"only one auth mechanism is allowed")
        if digest not in state.blobs:
            return self.answer(404)
        data = state.blobs[digest]
        fault = state.take_fault() if self.command == "GET" else None
        if fault in ("500", "429", "403"):
            return self.answer(int(fault), b"", {"Retry-After": "0"})
        begin, end, status = 0, len(data), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and fault != "200":
            begin = int(wanted[1])
            end = min(int(wanted[2]) + 1 if wanted[2] else len(data), len(data))
            status = 206
            if begin >= len(data):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        body = data[begin:end]
        headers = {"Content-Length": str(len(body)), "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        if fault == "flip" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.answer(status, b"", headers)
        if self.command == "HEAD":
            return
        self.send_slowly(body[: len(body) // 2] if fault == "cut" else body)
        if fault == "cut":
            self.close_connection = True

    def send_slowly(self, body):
        state = self.state
        view = memoryview(body)
        step = len(body) or 1
        if state.rate:
            # Bytes in a buffer count as sent: few of them, or a killed client looks wasteful.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            step = 4 * 1024
        for i in range(0, len(body), step):
            piece = view[i : i + step]
            self.wfile.write(piece)
            with state.lock:
                state.cdn_bytes += len(piece)
            if state.rate:
                time.sleep(len(piece) / state.rate)


class HubHandler(Handler):
    """Everything but the large files."""

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def do_GET(self):
        state = self.state
        self.url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(self.url.query))
        with state.lock:
            state.requests.append((self.command, self.path))
        path = self.url.path
        for pattern, handler in [
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", self.hf_tree),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", self.hf_info),
            (r"/api/v1/models/([^/]+/[^/]+)/repo/files", self.ms_files),
            (r"/api/v1/models/([^/]+/[^/]+)/repo", self.ms_file),
            (r"/git/(.+\.git)/info/lfs/objects/batch", self.lfs_batch),
            (r"/git/(.*)", self.git),
            (r"/v2/([^/]+/[^/]+)/manifests/([^/]+)", self.ollama_manifest),
            (r"/v2/([^/]+/[^/]+)/blobs/sha256:([0-9a-f]{64})", self.ollama_blob),
            (r"/token", self.ollama_token),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.hf_resolve),
        ]:
            match = re.fullmatch(pattern, path)
            if match:
                return handler(*match.groups())
        self.answer(404, {"error": "no such page"})

    # Hugging Face

    def hf_repository(self, name, revision):
        """The repository, or nothing after an answer that says why."""
        state = self.state
        repository = state.repositories.get(name)
        authorised = self.headers.get("Authorization") == f"Bearer {state.token}"
        if not repository or (repository.private and not authorised):
            self.answer(404 if authorised else 401, {"error": "Repository not found"},
                        {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        if urllib.parse.unquote(revision or "main") not in ("main", repository.commit):
            self.answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def hf_info(self, name, revision):
        repository = self.hf_repository(name, revision)
        if repository:
            siblings = [{"rfilename": path} for path in sorted(repository.files)]
            self.answer(200, {"id": name, "modelId": name, "sha": repository.commit, "tags": [],
                              "private": repository.private, "siblings": siblings,
                              "gated": "manual" if repository.gated else False,
                              "disabled": False, "downloads": 0, "likes": 0})

    def hf_tree(self, name, revision, _):
        repository = self.hf_repository(name, revision)
        if not repository:
            return
        entries = []
        for path, data in sorted(repository.files.items()):
            entry = {"type": "file", "oid": git_sha1(data), "size": len(data), "path": path}
            if is_large(path):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        folders = {str(parent) for path in repository.files
                   for parent in pathlib.PurePosixPath(path).parents if str(parent) != "."}
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
                    for folder in sorted(folders)]
        if repository.listed is not None:
            entries = repository.listed
        begin = int(self.query.get("cursor", 0))
        end = begin + self.state.page_size
        headers = {}
        if end < len(entries):
            query = urllib.parse.urlencode({"recursive": "true", "cursor": end})
            headers["Link"] = f'<{self.state.url}{self.url.path}?{query}>; rel="next"'
        self.answer(200, entries[begin:end], headers)

    def hf_resolve(self, name, revision, path):
        state = self.state
        if state.hub_redirect:
            return self.answer(302, b"", {"Location": state.hub_redirect})
        repository = self.hf_repository(name, revision)
        if not repository:
            return
        if repository.gated and self.headers.get("Authorization") != f"Bearer {state.token}":
            return self.answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        path = urllib.parse.unquote(path)
        if path not in repository.files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = repository.files[path]
        headers = {"X-Repo-Commit": repository.commit}
        if not is_large(path):
            headers["ETag"] = f'"{git_sha1(data)}"'
            return self.answer(200, b"" if self.command == "HEAD" else data,
                               {**headers, "Content-Length": str(len(data))})
        headers.update({"ETag": f'"{git_sha1(data)}"', "X-Linked-Etag": f'"{sha256(data)}"',
                        "X-Linked-Size": str(len(data)), "Location": state.link(sha256(data))})
        self.answer(302, b"", headers)

    # ModelScope

    def ms_repository(self, name):
        repository = self.state.repositories.get(name)
        if not repository:
            self.answer(404, {"Code": 10010205001, "Message": "no such model", "Success": False})
        return repository

    def ms_files(self, name):
        repository = self.ms_repository(name)
        if not repository:
            return
        files = [{"Type": "blob", "Path": path, "Name": path.rsplit("/")[-1], "Size": len(data),
                  "Sha256": sha256(data), "IsLFS": is_large(path), "Revision": repository.commit}
                 for path, data in repository.files.items()]
        self.answer(200, {"Code": 200, "Success": True, "Message": "", "Data": {"Files": files}})

    def ms_file(self, name):
        repository = self.ms_repository(name)
        if not repository:
            return
        data = repository.files[self.query["FilePath"]]
        if is_large(self.query["FilePath"]):
            return self.answer(302, b"", {"Location": self.state.link(sha256(data))})
        self.answer(200, data)

    # Git and LFS

    def git_allowed(self):
        user = self.state.git_user
        wanted = "Basic " + base64.b64encode((user or "").encode()).decode()
        if not user or self.headers.get("Authorization") == wanted:
            return True
        realm = {"WWW-Authenticate": 'Basic realm="git"', "LFS-Authenticate": 'Basic realm="git"'}
        self.read_body()
        self.answer(401, {"message": "credentials needed"}, realm)
        return False

    def git(self, path):
        if not self.git_allowed():
            return
        body = self.read_body()
        variables = {
            "GIT_PROJECT_ROOT": str(self.state.git_root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": "/" + path, "QUERY_STRING": self.url.query,
            "REQUEST_METHOD": self.command, "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "PATH": os.environ["PATH"],
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "REMOTE_ADDR": "127.0.0.1",
        }
        result = subprocess.run([GIT_BACKEND], env=variables, input=body, capture_output=True)
        head, _, content = result.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(headers.pop("Status", "200").split()[0])
        self.answer(status, content, headers)

    def lfs_batch(self, _):
        state = self.state
        if not self.git_allowed():
            return
        objects = json.loads(self.read_body())["objects"]
        with state.lock:
            state.n_batches += 1
        if len(objects) > state.lfs_max_batch:
            return self.answer(413, {"message": "too many objects"})
        answers = []
        for item in objects:
            if item["oid"] in state.lfs_missing or item["oid"] not in state.blobs:
                answers.append({**item, "error": {"code": 404, "message": "object does not exist"}})
                continue
            action = {"href": state.link(item["oid"]), "expires_in": int(state.link_life) or 1}
            answers.append({**item, "authenticated": True, "actions": {"download": action}})
        self.answer(200, {"transfer": "basic", "objects": answers, "hash_algo": "sha256"},
                    {"Content-Type": "application/vnd.git-lfs+json"})

    # Ollama

    def registry_allowed(self):
        state = self.state
        if (not state.registry_token
                or self.headers.get("Authorization") == f"Bearer {state.registry_token}"):
            return True
        challenge = f'Bearer realm="{state.side_url}/token",service="hub",scope="repository:x:pull"'
        self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "no token"}]},
                    {"WWW-Authenticate": challenge})
        return False

    def ollama_token(self):
        fields = [name for name, _ in urllib.parse.parse_qsl(self.url.query)]
        good = fields == ["nonce", "scope", "service", "ts"]
        self.answer(200 if good else 400, {"token": self.state.registry_token})

    def ollama_manifest(self, name, tag):
        if not self.registry_allowed():
            return
        manifest = self.state.manifests.get(f"{name}:{tag}")
        if manifest is None:
            return self.answer(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        self.answer(200, manifest)

    def ollama_blob(self, _, digest):
        if not self.registry_allowed():
            return
        self.answer(307, b"", {"Location": self.state.link(digest)})
