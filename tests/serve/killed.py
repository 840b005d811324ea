#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pushes with several clients, kills the server at a random moment, starts it again, and asks for all that was ever acknowledged.

    killed.py KILN HOST:PORT USER:PASSWORD ROUNDS      in a folder with the file "users"
"""
import base64, hashlib, http.client, io, json, os, random, signal, subprocess, sys, tarfile, threading, time

kiln, address, user, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
login = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}
blobs, tags, lock = {}, {}, threading.Lock()  # what was acknowledged
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def start():
    server = subprocess.Popen([kiln, "serve", "--listen", address, "--htpasswd", "users", "--write-users", user.split(":")[0], "--access-log", "-"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdout.readline().startswith(b"http"), "it does not start"
    return server


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body=body, headers={**login, **{k.replace("_", "-"): v for k, v in headers.items()}})
    answer = connection.getresponse()
    return answer, answer.read()


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(number):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for i in range(random.randrange(1, 6)):
            data = random.randbytes(random.randrange(1, 200000))
            info = tarfile.TarInfo(f"file-{number}-{i}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue() if random.random() < 0.7 else random.randbytes(50000)


def push_blob(connection, repository, data):
    answer, _ = ask(connection, "POST", f"/v2/{repository}/blobs/uploads/")
    where = answer.headers["Location"]
    if random.random() < 0.5:
        half = len(data) // 2
        ask(connection, "PATCH", where, data[:half])
        answer, _ = ask(connection, "PUT", f"{where}?digest={sha(data)}", data[half:])
    else:
        answer, _ = ask(connection, "PUT", f"{where}?digest={sha(data)}", data)
    if answer.status == 201:
        with lock:
            blobs[(repository, sha(data))] = len(data)


def work(name, stop):
    try:
        connection = http.client.HTTPConnection(address, timeout=60)
        while not stop.is_set():
            repository, data = random.choice(("one", "two", f"deep/{name}")), layer(name)
            config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha(data)]}, "n": random.random()}).encode()
            push_blob(connection, repository, data)
            push_blob(connection, repository, config)
            manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST,
                                   "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha(config), "size": len(config)},
                                   "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha(data), "size": len(data)}]}).encode()
            tag = f"t{name}-{random.randrange(1 << 30)}"
            answer, _ = ask(connection, "PUT", f"/v2/{repository}/manifests/{tag}", manifest, Content_Type=MANIFEST)
            if answer.status == 201:
                with lock:
                    tags[(repository, tag)] = sha(manifest)
    except (http.client.HTTPException, OSError):
        pass  # it was killed


lost = 0
for turn in range(rounds):
    server, stop = start(), threading.Event()
    threads = [threading.Thread(target=work, args=(i, stop)) for i in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(random.uniform(0.05, 2))
    if turn % 5 == 4:
        subprocess.run([kiln, "gc", "--grace", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server.send_signal(signal.SIGKILL)
    server.wait()
    stop.set()
    for thread in threads:
        thread.join()
    server = start()
    connection = http.client.HTTPConnection(address, timeout=60)
    for (repository, digest), size in blobs.items():
        answer, body = ask(connection, "GET", f"/v2/{repository}/blobs/{digest}")
        if answer.status != 200 or sha(body) != digest:
            lost += 1
            print(f"# round {turn}: {repository} {digest}: {answer.status}")
    for (repository, tag), digest in tags.items():
        answer, body = ask(connection, "GET", f"/v2/{repository}/manifests/{tag}")
        if answer.status != 200 or sha(body) != digest:
            lost += 1
            print(f"# round {turn}: {repository}:{tag}: {answer.status}")
    server.terminate()
    if server.wait(60):
        lost += 1
        print(f"# round {turn}: it does not end in peace")
    if len(blobs) > 300:  # asking for all of them takes its time
        blobs = dict(random.sample(sorted(blobs.items()), 200))
print(f"rounds={rounds} acknowledged={len(blobs) + len(tags)} lost={lost}")
