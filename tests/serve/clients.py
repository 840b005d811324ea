#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many clients at once pull every tag of some repositories, whole and in ranges, and check each digest.

    clients.py HOST:PORT USER:PASSWORD CLIENTS ROUNDS REPOSITORY...

Prints requests, errors, bytes, and the server's resident memory in MiB before, at its highest, and after.
"""
import base64, hashlib, http.client, json, random, re, sys, threading, time

address, user, clients, rounds, repositories = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
login = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}
lock, requests, errors, size = threading.Lock(), 0, [], 0


def note(count=0, error=None):
    global requests, size
    with lock:
        requests += 1
        size += count
        if error:
            errors.append(error)


class Client:
    def __init__(self):
        self.connection = http.client.HTTPConnection(address, timeout=300)

    def get(self, path, digest=None, **headers):
        try:
            self.connection.request("GET", path, headers={**login, **headers})
            answer = self.connection.getresponse()
            sha, count, body = hashlib.sha256(), 0, b""
            while piece := answer.read(1 << 18):
                sha.update(piece)
                count += len(piece)
                body = body + piece if count < 1 << 22 else body
            wrong = answer.status not in (200, 206) or (digest and digest != "sha256:" + sha.hexdigest())
            note(count, f"{path}: {answer.status}" if wrong else None)
            return body
        except Exception as error:
            note(0, f"{path}: {type(error).__name__} {error}")
            self.connection.close()
            return b""

    def pull(self, repository):
        for tag in json.loads(self.get(f"/v2/{repository}/tags/list") or b'{"tags":[]}')["tags"]:
            manifest = json.loads(self.get(f"/v2/{repository}/manifests/{tag}") or b"{}")
            for one in [manifest.get("config")] + manifest.get("layers", []):
                if one:
                    self.get(f"/v2/{repository}/blobs/{one['digest']}", one["digest"])
                    first = random.randrange(one["size"])
                    self.get(f"/v2/{repository}/blobs/{one['digest']}", Range=f"bytes={first}-{first + 99999}")


def memory():
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/metrics", headers=login)
    text = connection.getresponse().read().decode()
    return int(re.search(r"^process_resident_memory_bytes (\d+)", text, re.M).group(1)) >> 20


def work():
    client = Client()
    for _ in range(rounds):
        for repository in random.sample(repositories, len(repositories)):
            client.pull(repository)


before = highest = memory()
threads = [threading.Thread(target=work) for _ in range(clients)]
began = time.time()
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    time.sleep(0.1)
    highest = max(highest, memory())
for error in errors[:5]:
    print("#", error)
print(f"requests={requests} errors={len(errors)} mib={size >> 20} seconds={time.time() - began:.1f} before={before} highest={highest} after={memory()}")
