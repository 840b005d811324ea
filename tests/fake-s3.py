#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small S3 for tests: fake-s3.py FOLDER PORT. Objects are files FOLDER/BUCKET/KEY, so that a test can look at every byte.

Signatures are computed as AWS Signature Version 4 says, and a request without the right one is answered 403. The account is AKIDTEST / secret-of-test,
with the session token "token-of-test" if one is sent. What it is to do wrong is posted to /_fault as JSON:

    {"method": "GET", "match": "segments/", "times": 2, "do": "status", "status": 503, "code": "SlowDown"}
    "do": "cut" (with "after": bytes of the body), "wrong" (a byte of the body is changed), "drop" (the connection ends without an answer),
    "wait" (so many "seconds"); "skip": so many that match go well first

/_stats tells what was asked: {"requests", "in", "out", "log": [[method, path, status], ...]}; /_reset forgets that and all faults.
"""
import hashlib, hmac, http.server, json, os, re, socketserver, sys, threading, time, urllib.parse, uuid
from datetime import datetime, timezone
from xml.sax.saxutils import escape

ROOT, PORT = sys.argv[1], int(sys.argv[2])
ACCESS, SECRET, TOKEN = "AKIDTEST", "secret-of-test", "token-of-test"
PAGE = int(os.environ.get("FAKE_S3_PAGE", "1000"))
CONDITIONS = os.environ.get("FAKE_S3_CONDITIONS", "1") == "1"
lock = threading.Lock()
stats = {"requests": 0, "in": 0, "out": 0, "log": []}
faults, uploads = [], {}


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def handle_expect_100(self):
        good = super().handle_expect_100()
        self.wfile.flush()  # or the client waits a second before it sends
        return good

    def send_whole(self, status, body=b"", headers=()):
        fault = getattr(self, "fault", None) or {}
        send = body
        if fault.get("do") == "wrong" and body:
            at = fault.get("at", len(body) // 2)
            send = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(n == "Content-Length" for n, _ in headers):
            self.send_header("Content-Length", str(len(send)))
        self.end_headers()
        if fault.get("do") == "cut":
            send = send[: fault.get("after", 0)]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(send)
        with lock:
            stats["out"] += len(send)
            stats["log"].append([self.command, self.path, status])

    def error(self, status, code, headers=()):
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>as the test wants</Message></Error>'.encode()
        self.send_whole(status, body, headers)

    # --- signatures ---

    def signature_is_right(self, body):
        found = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, *SignedHeaders=([^,]+), *Signature=([0-9a-f]{64})$",
                         self.headers.get("Authorization", ""))
        if not found or found[1] != ACCESS:
            return False
        date, region, names, got = found[2], found[3], found[4].split(";"), found[5]
        stamp, declared = self.headers.get("X-Amz-Date", ""), self.headers.get("X-Amz-Content-Sha256", "")
        if "host" not in names or "x-amz-date" not in names or not stamp.startswith(date) or declared != hashlib.sha256(body).hexdigest():
            return False
        if self.headers.get("X-Amz-Security-Token") not in (None, TOKEN):
            return False
        if any(n.lower().startswith("x-amz-") and n.lower() not in names for n in self.headers):
            return False
        path, _, query = self.path.partition("?")
        pairs = sorted(tuple(p.split("=", 1)) if "=" in p else (p, "") for p in query.split("&") if p)
        canonical = "\n".join([self.command, path, "&".join(f"{k}={v}" for k, v in pairs),
                               *(f"{n}:{' '.join(self.headers[n].split())}" for n in names), "", ";".join(names), declared])
        scope = f"{date}/{region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = sign(sign(sign(sign(("AWS4" + SECRET).encode(), date), region), "s3"), "aws4_request")
        return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), got)

    # --- objects ---

    def file(self, bucket, key):
        path = os.path.normpath(os.path.join(ROOT, bucket, key))
        assert path.startswith(os.path.join(ROOT, bucket) + "/")
        return path

    def put(self, bucket, key, body):
        path = self.file(bucket, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = os.path.join(ROOT, f".{uuid.uuid4()}")
        with open(temporary, "wb") as out:
            out.write(body)
        os.rename(temporary, path)
        return '"' + hashlib.md5(body).hexdigest() + '"'

    def list(self, bucket, query):
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        keys = []
        base = os.path.join(ROOT, bucket)
        for folder, _, names in os.walk(base):
            keys += [os.path.relpath(os.path.join(folder, n), base) for n in names]
        keys = sorted(k for k in keys if k.startswith(prefix) and k > after)
        size = min(PAGE, int(query.get("max-keys", "1000")))
        rows = []
        for key in keys[:size]:
            st = os.stat(self.file(bucket, key))
            changed = datetime.fromtimestamp(st.st_mtime, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            rows.append(f"<Contents><Key>{escape(key)}</Key><LastModified>{changed}</LastModified><ETag>&quot;x&quot;</ETag>"
                        f"<Size>{st.st_size}</Size></Contents>")
        body = ('<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>{bucket}</Name><IsTruncated>{'true' if len(keys) > size else 'false'}</IsTruncated>{''.join(rows)}</ListBucketResult>")
        self.send_whole(200, body.encode())

    def get(self, bucket, key):
        try:
            with open(self.file(bucket, key), "rb") as file:
                body = file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return self.error(404, "NoSuchKey")
        etag = '"' + hashlib.md5(body).hexdigest() + '"'
        if self.headers.get("If-Match") not in (None, etag):
            return self.error(412, "PreconditionFailed")
        if self.command == "HEAD":
            return self.send_whole(200, b"", [("ETag", etag), ("Content-Length", str(len(body)))])
        found = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        if not found:
            return self.send_whole(200, body, [("ETag", etag)])
        first, last = int(found[1]), min(int(found[2] or len(body)), len(body) - 1)
        if first >= len(body):
            return self.error(416, "InvalidRange")
        return self.send_whole(206, body[first:last + 1], [("ETag", etag), ("Content-Range", f"bytes {first}-{last}/{len(body)}")])

    def put_object(self, bucket, key, query, body):
        if "uploadId" in query:
            if query["uploadId"] not in uploads:
                return self.error(404, "NoSuchUpload")
            etag = '"' + hashlib.md5(body).hexdigest() + '"'
            uploads[query["uploadId"]][int(query["partNumber"])] = (etag, body)
            return self.send_whole(200, b"", [("ETag", etag)])
        if self.headers.get("If-None-Match"):
            if not CONDITIONS:
                return self.error(501, "NotImplemented")
            if os.path.exists(self.file(bucket, key)):
                return self.error(412, "PreconditionFailed")
        return self.send_whole(200, b"", [("ETag", self.put(bucket, key, body))])

    def post_object(self, bucket, key, query, body):
        if "uploads" in query:
            name = "u+/" + uuid.uuid4().hex
            uploads[name] = {}
            return self.send_whole(200, f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>".encode())
        parts = uploads.get(query.get("uploadId"))
        if parts is None:
            return self.error(404, "NoSuchUpload")
        named = [(int(n), e.replace("&quot;", '"')) for n, e in re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>([^<]+)</ETag>", body.decode())]
        if not named or any(parts.get(n, (None,))[0] != e for n, e in named):
            return self.error(400, "InvalidPart")
        self.put(bucket, key, b"".join(parts[n][1] for n, _ in named))
        del uploads[query["uploadId"]]
        return self.send_whole(200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def control(self, body):
        if self.path == "/_fault":
            faults.append(json.loads(body))
        elif self.path == "/_reset":
            stats.update({"requests": 0, "in": 0, "out": 0, "log": []})
            faults.clear()
        answer = json.dumps({**stats, "uploads": len(uploads)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def find_fault(self):
        with lock:
            for fault in faults:
                if fault.get("times", 1) > 0 and fault.get("method", self.command) == self.command and fault.get("match", "") in self.path:
                    if fault.get("skip", 0) > 0:
                        fault["skip"] -= 1
                        continue
                    fault["times"] = fault.get("times", 1) - 1
                    return fault
        return None

    def handle_any(self):
        self.fault = None
        if not self.path.startswith("/_"):
            self.fault = self.find_fault()
            if self.fault and self.fault["do"] == "wait":
                time.sleep(self.fault["seconds"])
            if self.fault and self.fault["do"] == "drop":
                self.close_connection = True
                self.connection.close()
                return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.path.startswith("/_"):
            return self.control(body)
        with lock:
            stats["requests"] += 1
            stats["in"] += len(body)
        if len(body) < length:
            return
        path, _, text = self.path.partition("?")
        query = {k: v[0] for k, v in urllib.parse.parse_qs(text, keep_blank_values=True).items()}
        if self.fault and self.fault["do"] == "status":
            return self.error(self.fault["status"], self.fault.get("code", "Broken"), self.fault.get("headers", {}).items())
        if not self.signature_is_right(body):
            return self.error(403, "SignatureDoesNotMatch")
        _, bucket, key = (urllib.parse.unquote(path) + "/").split("/", 2)
        key = key.rstrip("/")
        if not os.path.isdir(os.path.join(ROOT, bucket)):
            return self.error(404, "NoSuchBucket")
        if self.command in ("GET", "HEAD"):
            return self.get(bucket, key) if key else self.list(bucket, query)
        if self.command == "PUT":
            return self.put_object(bucket, key, query, body)
        if self.command == "POST":
            return self.post_object(bucket, key, query, body)
        if "uploadId" in query:
            uploads.pop(query["uploadId"], None)
        elif os.path.exists(self.file(bucket, key)):
            os.unlink(self.file(bucket, key))
        return self.send_whole(204)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass


server = Server(("127.0.0.1", PORT), Handler)
os.write(1, b"%d\n" % server.server_address[1])
server.serve_forever()
