#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A registry for tests that goes wrong on request. fake.py PORT FOLDER [--referrers]

It keeps everything in FOLDER (blobs/HEX, manifests by repository) and does as FOLDER/faults.json says, which is read anew for each request:

  "cut": P            each answer or upload of a blob is cut at a random place with the probability P
  "cut_at": [[EXPRESSION, BYTES, TIMES], ...]   answers to GET of such a path end there so many times, the connection with them
  "status": [[METHOD, EXPRESSION, CODE, TIMES, RETRY-AFTER or null], ...]   answers that are CODE so many times
  "lie": true         a byte of each blob is another one        "short": true   blobs end early, and say so
  "no_ranges": true   ranges are not answered                   "redirect": "loop" | "http://HOST:PORT"
  "auth": {"user": U, "password": P, "requests": N}             bearer tokens that are good for N requests
  "basic": "USER:PASSWORD"                                      basic authentication instead

FOLDER/log has a line for each request: method, path, status, bytes received, bytes sent, and whether it had an Authorization.
"""
import base64, hashlib, json, os, random, re, sys, threading, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

port, folder = int(sys.argv[1]), sys.argv[2]
with_referrers = "--referrers" in sys.argv
os.makedirs(folder + "/blobs", exist_ok=True)
lock = threading.Lock()
manifests, uploads, tokens, counts, sizes = {}, {}, {}, {}, {}
random.seed(int(os.environ.get("FAKE_SEED", "1")))


def faults():
    try:
        with open(folder + "/faults.json") as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, status, received=0, sent=0):
        with lock, open(folder + "/log", "a") as f:
            f.write(f"{self.command} {self.path.split('?')[0]} {status} {received} {sent} {'auth' if self.headers.get('Authorization') else '-'} {self.headers.get('Range', '-')}\n")

    def body(self, into=None):
        size = int(self.headers.get("Content-Length") or 0)
        cut = random.randrange(size + 1) if size > 0 and into is not None and random.random() < faults().get("cut", 0) else None
        data = b""
        while size > 0:
            piece = self.rfile.read(min(size, 65536) if cut is None else min(size, 65536, max(cut, 1)))
            if not piece:
                break
            size -= len(piece)
            if cut is not None:
                piece = piece[:cut]
                cut -= len(piece)
            if into is not None:
                into += piece
            else:
                data += piece
            if cut == 0:
                self.close_connection = True
                self.connection.shutdown(2)
                raise ConnectionError
        return data

    def answer(self, status, body=b"", headers=(), cut=False):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            body = b""
        if cut and body:
            body = body[:random.randrange(len(body))]
        for rule in faults().get("cut_at", []):
            key = json.dumps(rule)
            if self.command == "GET" and body and status // 100 == 2 and re.search(rule[0], self.path) and counts.get(key, 0) < rule[2]:
                counts[key] = counts.get(key, 0) + 1
                body, cut = body[:rule[1]], True
        self.wfile.write(body)
        self.wfile.flush()
        if cut:
            self.close_connection = True
            self.connection.shutdown(2)
        self.note(status, int(self.headers.get("Content-Length") or 0), len(body))

    def error(self, status, code="UNKNOWN", headers=()):
        self.answer(status, json.dumps({"errors": [{"code": code, "message": "as asked"}]}).encode(), [("Content-Type", "application/json"), *headers])

    def planned(self):
        for rule in faults().get("status", []):
            method, expression, code, times, wait = rule
            key = json.dumps(rule)
            if self.command == method and re.search(expression, self.path) and counts.get(key, 0) < times:
                counts[key] = counts.get(key, 0) + 1
                self.body()
                self.error(code, headers=[("Retry-After", str(wait))] if wait is not None else [])
                return True
        return False

    def allowed(self):
        plan, given = faults(), self.headers.get("Authorization", "")
        if "basic" in plan:
            if given == "Basic " + base64.b64encode(plan["basic"].encode()).decode():
                return True
            self.body()
            self.error(401, "UNAUTHORIZED", [("WWW-Authenticate", 'Basic realm="fake"')])
            return False
        if "auth" not in plan:
            return True
        token = given[7:] if given.startswith("Bearer ") else ""
        with lock:
            if tokens.get(token, 0) > 0:
                tokens[token] -= 1
                return True
        self.body()
        self.error(401, "UNAUTHORIZED", [("WWW-Authenticate", f'Bearer realm="http://127.0.0.1:{port}/token",service="fake",scope="repository:x:pull"')])
        return False

    def token(self):
        plan = faults().get("auth", {})
        pair = base64.b64encode(f"{plan.get('user')}:{plan.get('password')}".encode()).decode()
        if self.headers.get("Authorization") != "Basic " + pair:
            return self.error(401, "UNAUTHORIZED")
        token = uuid.uuid4().hex
        with lock:
            tokens[token] = plan["requests"]
        self.answer(200, json.dumps({"token": token, "expires_in": 60}).encode())

    def serve(self):
        url = urlsplit(self.path)
        if url.path == "/token":
            return self.token()
        if url.path == "/v2/":
            return self.answer(200, b"{}")
        if self.planned() or not self.allowed():
            return None
        match = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests|tags|referrers)/(.*)", url.path)
        if not match:
            return self.error(404)
        return getattr(self, "do_" + match[2].replace("/", "_"))(match[1], match[3], parse_qs(url.query))

    def do_tags(self, repository, rest, query):
        self.answer(200, json.dumps({"name": repository, "tags": sorted(t for r, t in manifests if r == repository and ":" not in t)}).encode())

    def do_referrers(self, repository, digest, query):
        if not with_referrers:
            return self.error(404)
        found = []
        for (r, name), (data, kind) in list(manifests.items()):
            document = json.loads(data)
            if r == repository and ":" in name and document.get("subject", {}).get("digest") == digest:
                found.append({"mediaType": kind, "digest": name, "size": len(data), "artifactType": document.get("artifactType")})
        self.answer(200, json.dumps({"schemaVersion": 2, "manifests": found}).encode(), [("Content-Type", "application/vnd.oci.image.index.v1+json")])

    def do_manifests(self, repository, name, query):
        if self.command == "PUT":
            data = self.body()
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            document = json.loads(data)
            for blob in [document.get("config")] + document.get("layers", []):
                if blob and not os.path.exists(folder + "/blobs/" + blob["digest"][7:]):
                    return self.error(400, "MANIFEST_BLOB_UNKNOWN")
            manifests[repository, name] = manifests[repository, digest] = (data, self.headers["Content-Type"])
            subject = document.get("subject", {}).get("digest")
            return self.answer(201, b"", [("Docker-Content-Digest", digest)] + ([("OCI-Subject", subject)] if subject and with_referrers else []))
        if (repository, name) not in manifests:
            return self.error(404, "MANIFEST_UNKNOWN")
        data, kind = manifests[repository, name]
        return self.answer(200, data, [("Content-Type", kind), ("Docker-Content-Digest", "sha256:" + hashlib.sha256(data).hexdigest())])

    def do_blobs(self, repository, digest, query):
        path, plan = folder + "/blobs/" + digest[7:], faults()
        if not os.path.exists(path):
            return self.error(404, "BLOB_UNKNOWN")
        if self.command == "GET" and plan.get("redirect"):
            return self.answer(307, b"", [("Location", self.path if plan["redirect"] == "loop" else plan["redirect"] + self.path)])
        with open(path, "rb") as f:
            data = f.read()
        if plan.get("lie"):
            data = bytes([data[0] ^ 1]) + data[1:]
        if plan.get("short"):
            data = data[:len(data) // 2]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        cut = self.command == "GET" and random.random() < plan.get("cut", 0)
        if wanted and not plan.get("no_ranges"):
            start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
            if start >= len(data):
                return self.error(416)
            end = min(end, len(data) - 1)
            return self.answer(206, data[start:end + 1], [("Content-Range", f"bytes {start}-{end}/{len(data)}")], cut)
        if self.command == "HEAD":
            return self.answer(200, b"", [("Content-Length", str(len(data)))])
        return self.answer(200, data, cut=cut)

    def do_blobs_uploads(self, repository, rest, query):
        if self.command == "POST":
            if "mount" in query and os.path.exists(folder + "/blobs/" + query["mount"][0][7:]):
                return self.answer(201)
            self.body()
            name = uuid.uuid4().hex
            uploads[name] = bytearray()
            return self.answer(202, b"", [("Location", f"/v2/{repository}/blobs/uploads/{name}"), ("Range", "0-0")])
        if rest not in uploads:
            self.body()
            return self.error(404, "BLOB_UPLOAD_UNKNOWN")
        data, place = uploads[rest], [("Location", f"/v2/{repository}/blobs/uploads/{rest}")]
        if self.command == "GET":
            return self.answer(204, b"", place + [("Range", f"0-{max(len(data) - 1, 0)}")])
        start = re.match(r"(\d+)-", self.headers.get("Content-Range", ""))
        if start and int(start[1]) != len(data):
            self.body()
            return self.error(416)
        self.body(data)
        if self.command == "PATCH":
            return self.answer(202, b"", place + [("Range", f"0-{max(len(data) - 1, 0)}")])
        digest = hashlib.sha256(data).hexdigest()
        if query["digest"][0] != "sha256:" + digest:
            del uploads[rest]
            return self.error(400, "DIGEST_INVALID")
        with open(folder + "/blobs/" + digest, "wb") as f:
            f.write(data)
        del uploads[rest]
        return self.answer(201)

    def handle_one(self):
        try:
            self.serve()
        except ConnectionError:
            self.close_connection = True
            self.note(0)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client):
        pass


Server(("127.0.0.1", port), Handler).serve_forever()
