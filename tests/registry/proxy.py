#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A proxy for tests, by CONNECT and by whole URLs, that brings everybody to 127.0.0.1 whatever the host is called: proxy.py PORT LOG"""
import select, socket, sys, threading
from urllib.parse import urlsplit

port, log = int(sys.argv[1]), sys.argv[2]


def pump(a, b):
    while True:
        for side in select.select([a, b], [], [])[0]:
            data = side.recv(65536)
            if not data:
                return
            (b if side is a else a).sendall(data)


def handle(client):
    head = b""
    with client:
        while b"\r\n\r\n" not in head:
            data = client.recv(65536)
            if not data:
                return
            head += data
        line, rest = head.split(b"\r\n", 1)
        method, target, version = line.decode().split(" ")
        with open(log, "a") as f:
            f.write(f"{method} {target}\n")
        url = urlsplit(target if method != "CONNECT" else "//" + target)
        try:
            server = socket.create_connection(("127.0.0.1", url.port))
        except OSError:
            client.sendall(b"HTTP/1.1 502 nobody there\r\nContent-Length: 0\r\n\r\n")
            return
        with server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 here you are\r\n\r\n")
            else: # one request for each connection
                path = target[target.index("/", 8):]
                server.sendall(f"{method} {path} {version}\r\nConnection: close\r\n".encode() + rest)
            pump(client, server)


listener = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()
