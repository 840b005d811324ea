#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a registry for every endpoint of the distribution specification (end-1 to end-14), and for what nobody should ask.

    endpoints.py HOST:PORT WRITER:PASSWORD READER:PASSWORD

Prints "ok NAME" or "not ok NAME: why", a line each. Written from the specification's text.
"""
import base64, hashlib, http.client, json, socket, sys

ADDRESS, WRITER, READER = sys.argv[1:4]
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self):
        return json.loads(self.body)

    def code(self):
        return self.json()["errors"][0]["code"]


kept = {}


def ask(method, path, body=None, user=WRITER, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    for again in (False, True):
        connection = kept.get("connection") or http.client.HTTPConnection(ADDRESS, timeout=20)
        kept["connection"] = connection
        try:
            connection.request(method, path, body=body, headers=headers, encode_chunked="Transfer-Encoding" in headers)
            answer = Answer(connection.getresponse())
            break
        except (http.client.HTTPException, OSError):
            connection.close()
            kept.clear()
            if again:
                raise
    if answer.headers.get("Connection") == "close":
        kept.clear()
    return answer


def raw(data, patience=2):
    with socket.create_connection(tuple(ADDRESS.rsplit(":", 1)), timeout=patience) as sock:
        sock.sendall(data)
        got = b""
        try:
            while len(got) < 65536:
                piece = sock.recv(65536)
                if not piece:
                    break
                got += piece
                if b"\r\n\r\n" in got:
                    break
        except (TimeoutError, ConnectionResetError):
            pass
        return got


def check(name, *conditions):
    bad = [str(i + 1) for i, condition in enumerate(conditions) if not condition]
    print(f"not ok {name}: condition {', '.join(bad)}" if bad else f"ok {name}")


def sha(data, kind="sha256"):
    return kind + ":" + hashlib.new(kind, data).hexdigest()


def push_blob(repo, data, kind="sha256"):
    answer = ask("POST", f"/v2/{repo}/blobs/uploads/?digest={sha(data, kind)}", data)
    assert answer.status == 201, (answer.status, answer.body)
    return sha(data, kind)


def descriptor(data, media="application/octet-stream", kind="sha256", **more):
    return {"mediaType": media, "digest": sha(data, kind), "size": len(data), **more}


def manifest(config, *layers, **more):
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config, more.pop("config_type", "application/vnd.oci.empty.v1+json")),
                       "layers": [descriptor(layer) for layer in layers], **more}).encode()


def put(repo, reference, data, media=MANIFEST, **headers):
    return ask("PUT", f"/v2/{repo}/manifests/{reference}", data, Content_Type=media, **headers)


def pulls():
    a = ask("GET", "/v2/")
    check("end-1: the base says what it is", a.status == 200, "registry/2.0" == a.headers["Docker-Distribution-Api-Version"])
    data = bytes(range(256)) * 40
    digest = push_blob("t/pull", data)
    a = ask("GET", f"/v2/t/pull/blobs/{digest}", user=READER)
    check("end-2: a blob", a.status == 200, a.body == data, a.headers["Docker-Content-Digest"] == digest, a.headers["Content-Length"] == "10240")
    a = ask("HEAD", f"/v2/t/pull/blobs/{digest}", user=READER)
    check("end-2: HEAD has the length and no body", a.status == 200, a.body == b"", a.headers["Content-Length"] == "10240")
    for text, first, last in (("bytes=500-1499", 500, 1499), ("bytes=10000-", 10000, 10239), ("bytes=-5", 10235, 10239), ("bytes=10239-99999", 10239, 10239)):
        a = ask("GET", f"/v2/t/pull/blobs/{digest}", Range=text)
        check(f"end-2: {text}", a.status == 206, a.body == data[first:last + 1], a.headers["Content-Range"] == f"bytes {first}-{last}/10240")
    for text in ("bytes=10240-", "bytes=9-8", "bytes=-0"):
        a = ask("GET", f"/v2/t/pull/blobs/{digest}", Range=text)
        check(f"end-2: {text} is outside", a.status == 416, a.headers["Content-Range"] == "bytes */10240")
    for text in ("lines=1-2", "bytes=1-2,4-5", "bytes=a-b", "bytes=1"):
        a = ask("GET", f"/v2/t/pull/blobs/{digest}", Range=text)
        check(f"end-2: {text} asks for all", a.status == 200, a.body == data)
    a = ask("GET", f"/v2/t/pull/blobs/{digest}", Range="bytes=5-9", If_Range=f'"{digest}"')
    check("end-2: a part of what the client has", a.status == 206, a.body == data[5:10])
    a = ask("GET", f"/v2/t/pull/blobs/{digest}", Range="bytes=5-9", If_Range='"other"')
    check("end-2: all of it when that is another", a.status == 200, a.body == data)
    a = ask("GET", f"/v2/t/pull/blobs/{digest}", If_None_Match=f'"x", "{digest}"')
    check("end-2: nothing when the client has it", a.status == 304, a.body == b"", a.headers["ETag"] == f'"{digest}"')
    a = ask("GET", f"/v2/t/pull/blobs/{sha(b'never')}")
    check("end-2: no such blob", a.status == 404, a.code() == "BLOB_UNKNOWN")
    a = ask("GET", f"/v2/t/other/blobs/{digest}")
    check("end-2: a blob is its repository's", a.status == 404)
    push_blob("t/pull", b"{}")
    body = manifest(b"{}", data)
    a = put("t/pull", "one", body)
    check("end-7: a manifest by tag", a.status == 201, a.headers["Location"] == f"/v2/t/pull/manifests/{sha(body)}", a.headers["Docker-Content-Digest"] == sha(body))
    for reference in ("one", sha(body), sha(body).replace(":", "%3A")):
        a = ask("GET", f"/v2/t/pull/manifests/{reference}", user=READER)
        check("end-3: a manifest, byte for byte", a.status == 200, a.body == body, a.headers["Content-Type"] == MANIFEST, a.headers["Docker-Content-Digest"] == sha(body))
    a = ask("GET", "/v2/t/pull/manifests/one", If_None_Match=f'"{sha(body)}"')
    check("end-3: nothing when the client has it", a.status == 304, a.body == b"")
    check("end-3: unless it has another", ask("GET", "/v2/t/pull/manifests/one", If_None_Match='"x"').body == body)
    a = ask("HEAD", "/v2/t/pull/manifests/one", user=READER)
    check("end-3: HEAD", a.status == 200, a.headers["Content-Length"] == str(len(body)), a.body == b"")
    check("end-3: no such tag", ask("GET", "/v2/t/pull/manifests/two").code() == "MANIFEST_UNKNOWN", ask("HEAD", "/v2/t/pull/manifests/two").status == 404)
    check("end-3: no such repository", ask("GET", "/v2/t/nothing/manifests/one").status == 404)


def uploads():
    data = b"chunk" * 1000
    a = ask("POST", "/v2/t/push/blobs/uploads/")
    where = a.headers["Location"]
    check("end-4a: an upload begins", a.status == 202, where.startswith("/v2/t/push/blobs/uploads/"), a.headers["Range"] == "0-0")
    a = ask("PUT", f"{where}?digest={sha(data)}", data)
    check("end-6: and ends with all of it", a.status == 201, a.headers["Location"] == f"/v2/t/push/blobs/{sha(data)}", ask("GET", a.headers["Location"]).body == data)
    check("end-6: it is gone then", ask("GET", where).status == 404)
    data = b"single" * 999
    a = ask("POST", f"/v2/t/push/blobs/uploads/?digest={sha(data)}", data)
    check("end-4b: one request", a.status == 201, ask("GET", f"/v2/t/push/blobs/{sha(data)}").body == data)
    a = ask("POST", f"/v2/t/push/blobs/uploads/?digest={sha(b'other')}", data)
    check("end-4b: other bytes than the digest says", a.status == 400, a.code() == "DIGEST_INVALID")
    a = ask("POST", f"/v2/t/push/blobs/uploads/?digest={sha(b'')}", b"")
    check("end-4b: a blob of no bytes", a.status == 201, ask("GET", f"/v2/t/push/blobs/{sha(b'')}").status == 200)
    for kind in ("sha256", "sha512"):
        data = kind.encode() * 2000
        where = ask("POST", f"/v2/t/push/blobs/uploads/?digest-algorithm={kind}").headers["Location"]
        a = ask("PATCH", where, data[:5000], Content_Range="0-4999")
        check(f"end-5: a chunk ({kind})", a.status == 202, a.headers["Range"] == "0-4999")
        for wrong in ("0-4999", "6000-6999", "4999-5998", "x", "7000-6000"):
            a = ask("PATCH", where, data[:1000], Content_Range=wrong)
            check(f"end-5: out of order, {wrong} ({kind})", a.status == 416, a.headers["Range"] == "0-4999")
        a = ask("GET", where)
        check(f"end-13: how far it is ({kind})", a.status == 204, a.headers["Range"] == "0-4999", a.headers["Location"] == where)
        check(f"end-6: the last chunk may be out of order too ({kind})", ask("PUT", f"{where}?digest={sha(data, kind)}", data[9:], Content_Range="9-11999").status == 416)
        a = ask("PATCH", where, data[5000:9000])
        check(f"end-5: a stream goes on where it is ({kind})", a.status == 202, a.headers["Range"] == "0-8999")
        a = ask("PUT", f"{where}?digest={sha(data, kind)}", data[9000:], Content_Range=f"9000-{len(data) - 1}")
        check(f"end-6: the last chunk ({kind})", a.status == 201, a.headers["Docker-Content-Digest"] == sha(data, kind))
        a = ask("GET", f"/v2/t/push/blobs/{sha(data, kind)}")
        check(f"end-2: is what was sent ({kind})", a.body == data, a.headers["Docker-Content-Digest"] == sha(data, kind))
    where = ask("POST", "/v2/t/push/blobs/uploads/").headers["Location"]
    ask("PATCH", where, b"abc")
    a = ask("PUT", f"{where}?digest={sha(b'abd')}")
    check("end-6: a wrong digest ends it", a.status == 400, a.code() == "DIGEST_INVALID")
    where = ask("POST", "/v2/t/push/blobs/uploads/").headers["Location"]
    check("end-6: no digest", ask("PUT", where, b"abc").status == 400, ask("GET", where).status == 204)
    check("end-6: a digest of a kind that nobody knows", ask("PUT", f"{where}?digest=md5:abc").code() == "DIGEST_INVALID")
    check("end-13: an upload is its repository's", ask("GET", where.replace("/push/", "/pull/")).status == 404)
    check("end-13: and its user's", ask("GET", where, user=READER).status == 403)
    check("end-14: it is given up", ask("DELETE", where).status == 204, ask("GET", where).status == 404, ask("DELETE", where).status == 404)
    check("end-4c: digests that nobody knows", ask("POST", "/v2/t/push/blobs/uploads/?digest-algorithm=md5").status == 400)
    data = b"mounted" * 100
    digest = push_blob("t/from", data)
    a = ask("POST", f"/v2/t/to/blobs/uploads/?mount={digest}&from=t/from")
    check("end-11: mounted from another repository", a.status == 201, ask("GET", f"/v2/t/to/blobs/{digest}").body == data)
    a = ask("POST", f"/v2/t/too/blobs/uploads/?mount={digest}")
    check("end-11: from whichever has it", a.status == 201, ask("GET", f"/v2/t/too/blobs/{digest}").body == data)
    for query in (f"mount={sha(b'no')}&from=t/from", f"mount={digest}&from=t/empty", f"mount={digest}&from=../x"):
        a = ask("POST", f"/v2/t/three/blobs/uploads/?{query}")
        check("end-11: what is not there is uploaded", a.status == 202, ask("DELETE", a.headers["Location"]).status == 204)
    check("end-11: malformed", ask("POST", "/v2/t/three/blobs/uploads/?mount=sha256:1&from=t/from").status == 400)


def manifests():
    repo = "t/manifests"
    push_blob(repo, b"{}")
    push_blob(repo, b"layer")
    good = manifest(b"{}", b"layer")
    a = put(repo, sha(good), good)
    check("end-7: by digest", a.status == 201)
    check("end-7: another digest", put(repo, sha(b"x"), good).code() == "DIGEST_INVALID")
    a = put(repo, sha(good) + "?tag=a&tag=b&tag=c.1", good)
    check("end-7: tags in the query", a.status == 201, a.headers["OCI-Tag"] == "a, b, c.1", all(ask("GET", f"/v2/{repo}/manifests/{t}").body == good for t in ("a", "b", "c.1")))
    check("end-7: by sha512", put(repo, sha(good, "sha512") + "?tag=wide", good).headers["Docker-Content-Digest"] == sha(good, "sha512"),
          ask("GET", f"/v2/{repo}/manifests/{sha(good, 'sha512')}").body == good, ask("HEAD", f"/v2/{repo}/manifests/wide").headers["Docker-Content-Digest"] == sha(good, "sha512"))
    a = put(repo, "x", manifest(b"{}", b"missing"))
    check("end-7: a layer is missing", a.status == 404, a.code() == "MANIFEST_BLOB_UNKNOWN", ask("GET", f"/v2/{repo}/manifests/x").status == 404)
    foreign = json.loads(good)
    foreign["layers"].append(descriptor(b"foreign", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", urls=["https://example.com/"]))
    check("end-7: one that must not be distributed may be", put(repo, "foreign", json.dumps(foreign).encode()).status == 201)
    wrong = json.loads(good)
    wrong["layers"][0]["size"] += 1
    check("end-7: a layer of another size", put(repo, "x", json.dumps(wrong).encode()).code() == "MANIFEST_INVALID")
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(good, MANIFEST, platform={"os": "linux", "architecture": "amd64"})]}).encode()
    check("end-7: an index", put(repo, "index", index, INDEX).status == 201, ask("GET", f"/v2/{repo}/manifests/index").headers["Content-Type"] == INDEX)
    check("end-7: an index of what is not there", put(repo, "x", index.replace(sha(good).encode(), sha(b"no").encode()), INDEX).code() == "MANIFEST_BLOB_UNKNOWN")
    for name, body in (("no JSON", b"{"), ("a list", b"[]"), ("nothing", b""), ("schema 1", b'{"schemaVersion":1}'), ("no config", b'{"schemaVersion":2,"layers":[]}'),
                       ("a digest that is none", good.replace(b"sha256:", b"sha256;")), ("a size that is none", good.replace(b'"size": 5', b'"size": -5')),
                       ("a key twice", good.replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2')),
                       ("a type that nobody knows", good.replace(MANIFEST.encode(), b"text/plain"))):
        a = put(repo, "x", body)
        check(f"end-7: {name}", a.status == 400, a.code() == "MANIFEST_INVALID")
    check("end-7: not what it says", put(repo, "x", good, INDEX).status == 400)
    padded = good + b" " * (4 * 1024 * 1024 - len(good))
    check("end-7: four MiB are taken", put(repo, "big", padded).status == 201, ask("GET", f"/v2/{repo}/manifests/big").body == padded)
    a = put(repo, "x", padded + b" ")
    check("end-7: a byte more is too large", a.status == 413)
    a = ask("PUT", f"/v2/{repo}/manifests/x", iter([padded, b" "]), Content_Type=MANIFEST, Transfer_Encoding="chunked")
    check("end-7: also when nobody says how large", a.status == 413)
    docker = good.replace(MANIFEST.encode(), b"application/vnd.docker.distribution.manifest.v2+json")
    check("end-7: docker's", put(repo, "docker", docker, "application/vnd.docker.distribution.manifest.v2+json").status == 201,
          ask("GET", f"/v2/{repo}/manifests/docker").headers["Content-Type"] == "application/vnd.docker.distribution.manifest.v2+json")

    subject = {"mediaType": MANIFEST, "digest": sha(b"later"), "size": 5}
    first = manifest(b"{}", artifactType="application/example.one", subject=subject, annotations={"a": "1"})
    second = manifest(b"layer", config_type="application/example.two", subject=subject)
    third = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject}).encode()
    a = put(repo, sha(first), first)
    check("end-7: a subject that is not there yet", a.status == 201, a.headers["OCI-Subject"] == sha(b"later"))
    put(repo, sha(second), second)
    put(repo, sha(third), third, INDEX)
    a = ask("GET", f"/v2/{repo}/referrers/{sha(b'later')}", user=READER)
    found = {d["digest"]: d for d in a.json()["manifests"]}
    check("end-12a: what refers to it", a.status == 200, a.headers["Content-Type"] == INDEX, set(found) == {sha(first), sha(second), sha(third)},
          found[sha(first)]["artifactType"] == "application/example.one", found[sha(first)]["annotations"] == {"a": "1"},
          found[sha(second)]["artifactType"] == "application/example.two", "artifactType" not in found[sha(third)], found[sha(first)]["size"] == len(first))
    a = ask("GET", f"/v2/{repo}/referrers/{sha(b'later')}?artifactType=application/example.two")
    check("end-12b: of one type", [d["digest"] for d in a.json()["manifests"]] == [sha(second)], a.headers["OCI-Filters-Applied"] == "artifactType")
    a = ask("GET", f"/v2/{repo}/referrers/{sha(b'nothing')}")
    check("end-12a: nothing refers to it", a.status == 200, a.json()["manifests"] == [], a.json()["schemaVersion"] == 2)
    check("end-12a: no digest", ask("GET", f"/v2/{repo}/referrers/latest").status == 400, ask("GET", f"/v2/{repo}/referrers/sha256:1").status == 400)
    many = [manifest(b"{}", subject={**subject, "digest": sha(b"many")}, annotations={"n": str(i)}) for i in range(120)]
    for one in many:
        put(repo, sha(one), one)
    seen, path = [], f"/v2/{repo}/referrers/{sha(b'many')}?artifactType=application/vnd.oci.empty.v1%2Bjson"
    pages = 0
    while path and pages < 9:
        a = ask("GET", path)
        seen += [d["digest"] for d in a.json()["manifests"]]
        path = a.headers["Link"][1:].split(">")[0] if a.headers["Link"] else None
        pages += 1
    check("end-12a: many come in pages", pages == 2, sorted(seen) == sorted(sha(one) for one in many))

    everything = sorted(("a", "b", "c.1", "wide", "foreign", "index", "big", "docker"))
    a = ask("GET", f"/v2/{repo}/tags/list", user=READER)
    check("end-8a: tags in order", a.json() == {"name": repo, "tags": everything})
    seen, path = [], f"/v2/{repo}/tags/list?n=3"
    while path and len(seen) < 99:
        a = ask("GET", path)
        seen += a.json()["tags"]
        path = a.headers["Link"][1:].split(">")[0] if a.headers["Link"] else None
    check("end-8b: in pages", seen == everything)
    check("end-8b: behind one", ask("GET", f"/v2/{repo}/tags/list?last=docker").json()["tags"] == ["foreign", "index", "wide"])
    a = ask("GET", f"/v2/{repo}/tags/list?n=0")
    check("end-8b: none", a.json()["tags"] == [], a.headers["Link"] is None)
    check("end-8b: n that is no number", ask("GET", f"/v2/{repo}/tags/list?n=x").status == 400)
    check("end-8a: no such repository", ask("GET", "/v2/t/nothing/tags/list").code() == "NAME_UNKNOWN")
    check("repositories", repo in ask("GET", "/v2/_catalog").json()["repositories"])

    layer = sha(b"layer")
    a = ask("DELETE", f"/v2/{repo}/blobs/{layer}")
    check("end-10: not while a manifest names it", a.status == 405, ask("GET", f"/v2/{repo}/blobs/{layer}").status == 200)
    check("end-9: a tag", ask("DELETE", f"/v2/{repo}/manifests/a").status == 202, ask("GET", f"/v2/{repo}/manifests/a").status == 404, ask("GET", f"/v2/{repo}/manifests/b").status == 200)
    check("end-9: a manifest and its tags", ask("DELETE", f"/v2/{repo}/manifests/{sha(good)}").status == 202, ask("GET", f"/v2/{repo}/manifests/b").status == 404,
          ask("GET", f"/v2/{repo}/manifests/{sha(good)}").status == 404)
    check("end-9: twice", ask("DELETE", f"/v2/{repo}/manifests/{sha(good)}").status == 404, ask("DELETE", f"/v2/{repo}/manifests/a").status == 404)
    ask("DELETE", f"/v2/{repo}/manifests/{sha(first)}")
    check("end-12a: what is gone refers to nothing", sha(first) not in [d["digest"] for d in ask("GET", f"/v2/{repo}/referrers/{sha(b'later')}").json()["manifests"]])
    alone = push_blob(repo, b"alone")
    check("end-10: a blob", ask("DELETE", f"/v2/{repo}/blobs/{alone}").status == 202, ask("GET", f"/v2/{repo}/blobs/{alone}").status == 404, ask("DELETE", f"/v2/{repo}/blobs/{alone}").status == 404)


def rights():
    digest = push_blob("t/rights", b"{}")
    body = manifest(b"{}")
    put("t/rights", "one", body)
    where = ask("POST", "/v2/t/rights/blobs/uploads/").headers["Location"]
    reads = ["/v2/", "/v2/_catalog", f"/v2/t/rights/blobs/{digest}", "/v2/t/rights/manifests/one", "/v2/t/rights/tags/list", f"/v2/t/rights/referrers/{digest}", "/metrics",
             "/v2/nothing/here", "/v2/UPPER/tags/list", "/elsewhere"]
    writes = [("POST", "/v2/t/rights/blobs/uploads/"), ("POST", f"/v2/t/rights/blobs/uploads/?mount={digest}&from=t/pull"), ("GET", where), ("PATCH", where), ("PUT", f"{where}?digest={digest}"),
              ("DELETE", where), ("PUT", "/v2/t/rights/manifests/two"), ("DELETE", "/v2/t/rights/manifests/one"), ("DELETE", f"/v2/t/rights/blobs/{digest}"), ("POST", "/v2/"), ("PUT", "/elsewhere")]
    for path in reads:
        for user in (None, "nobody:secret", READER + "x", ":", "a"):
            a = ask("GET", path, user=user)
            check(f"401 without a user who is known: GET {path}", a.status == 401, a.headers["WWW-Authenticate"].startswith("Basic "), a.code() == "UNAUTHORIZED")
    check("401 for what is no Basic", raw(f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n\r\n".encode()).startswith(b"HTTP/1.1 401"))
    for method, path in writes:
        check(f"401 without a user: {method} {path[:40]}", ask(method, path, b"x" if method != "GET" else None, user=None).status == 401)
        a = ask(method, path, b"x" if method != "GET" else None, user=READER)
        check(f"403 for who may read: {method} {path[:40]}", a.status == 403, a.code() == "DENIED")
    check("nothing of that did anything", ask("GET", "/v2/t/rights/manifests/one").body == body, ask("GET", where).headers["Range"] == "0-0", ask("DELETE", where).status == 204)
    check("anybody sees that it is alive", ask("GET", "/healthz", user=None).body == b"ok\n", ask("GET", "/readyz", user=None).status == 200)


def tricks():
    digest = sha(b"{}")
    for path in ("/v2/../v2/", "/v2/t/../rights/manifests/one", "/v2/t%2frights/manifests/one", "/v2/t//rights/manifests/one", "/v2/t/rights/manifests/one%00", "/v2/t/rights/manifests/..",
                 "/v2/.t/rights/tags/list", "/v2/t./rights/tags/list", "/v2/t/rights-/tags/list", "/v2/t/Rights/tags/list", "/v2//tags/list", "/v2/t/rights/blobs/../../../../etc/passwd",
                 "/v2/t/rights/blobs/sha256:../../../state.db", "/v2/t/rights/blobs/sha256:" + "a" * 63, "/v2/t/rights/blobs/sha256:" + "A" * 64, "/v2/t/rights/manifests/-x",
                 "/v2/t/rights/manifests/" + "x" * 129, "/v2/" + "a/" * 140 + "tags/list", "/v2/t/rights/manifests/%zz", "/v2/t/rights/manifests/%C3%A9", "/v2/t/rights/blobs/uploads/../x",
                 "/v2/t/rights/blobs/uploads/" + "g" * 32, "/%76%32/../x", "/v2/t/rights/blobs/" + digest + "/"):
        a = ask("GET", path)
        check(f"a path trick: {path[:50]}", a.status in (400, 404), a.headers["Content-Type"] == "application/json")
    check("methods that are none", all(ask(m, "/v2/t/rights/tags/list").status in (400, 405) for m in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW")))
    check("a head without an end has an end", raw(b"GET /v2/ HTTP/1.1\r\n" + b"X-A: " + b"a" * 300000 + b"\r\n\r\n")[9:12] in (b"431", b"413", b"400", b""))
    check("a line without an end has an end", raw(b"GET /" + b"a" * 300000 + b" HTTP/1.1\r\n\r\n")[9:12] in (b"414", b"431", b"400", b""))
    user = "Authorization: Basic " + base64.b64encode(WRITER.encode()).decode() + "\r\n"
    for twice in ("Content-Length: 4\r\nTransfer-Encoding: chunked", "Content-Length: 0\r\nContent-Length: 5", "Transfer-Encoding: gzip, chunked"):
        a = raw(f"POST /v2/t/rights/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n{user}{twice}\r\n\r\n0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        check(f"a body with two ends: {twice[:17]}", a.startswith(b"HTTP/1.1 400"), a.count(b"HTTP/1.1") == 1)
    check("a whole URL", raw(f"GET http://x/v2/ HTTP/1.1\r\nHost: x\r\n{user}Connection: close\r\n\r\n".encode()).startswith(b"HTTP/1.1 200"))
    check("no HTTP", raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 1)[9:12] in (b"400", b""))
    login = base64.b64encode(WRITER.encode()).decode()
    a = raw(f"PUT /v2/t/rights/manifests/x HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\nContent-Length: -5\r\n\r\n".encode())
    check("a length that is none", a[9:12] in (b"400", b"413", b""))
    a = raw(f"PUT /v2/t/rights/manifests/x HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n".encode())
    check("a large body is refused before it comes", a.startswith(b"HTTP/1.1 413"))
    check("it is still alive", ask("GET", "/v2/").status == 200)


for part in (pulls, uploads, manifests, rights, tricks):
    try:
        part()
    except Exception as error:  # a part that falls is one failure
        print(f"not ok {part.__name__} to the end: {type(error).__name__} {error} (line {error.__traceback__.tb_next.tb_lineno if error.__traceback__.tb_next else '?'})")
