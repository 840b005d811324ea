#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pushes a file as an artifact of one layer, as other tools do it: artifact.py URL REPOSITORY TAG TITLE FILE [MEDIA-TYPE [CONFIG-TYPE]]"""
import hashlib, json, sys, urllib.request

base, repository, tag, title, path = sys.argv[1:6]
kind = sys.argv[6] if len(sys.argv) > 6 else "application/vnd.oci.image.layer.v1.tar"
config_kind = sys.argv[7] if len(sys.argv) > 7 else "application/vnd.unknown.config.v1+json"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def send(method, url, data, content):
    request = urllib.request.Request(url, data, {"Content-Type": content}, method=method)
    with opener.open(request) as answer:
        return answer.headers.get("Location")


def blob(data, kind):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    place = send("POST", f"{base}/v2/{repository}/blobs/uploads/", b"", "application/octet-stream")
    send("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", data, "application/octet-stream")
    return {"mediaType": kind, "digest": digest, "size": len(data)}


with open(path, "rb") as f:
    layer = blob(f.read(), kind)
if title:
    layer["annotations"] = {"org.opencontainers.image.title": title}
manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": blob(b"{}", config_kind), "layers": [layer]}
send("PUT", f"{base}/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), manifest["mediaType"])
