#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
A reader of kiln stores that shares nothing with kiln: written from the manual page kiln-store(5) alone, with Python's own library and the program `zstd`.

It shows that the page says enough. tests/cli/99-store-format.sh holds what it reads against what `kiln export` writes; whoever changes the format
changes the page first, then this file, and never looks at store/ while doing so. It is slow, and trusts no byte it has not hashed.

    kiln_store_reader.py STORE list                      NAME KIND IMAGE-ID of every name
    kiln_store_reader.py STORE disk NAME FILE            a disk as a raw file
    kiln_store_reader.py STORE layers NAME FOLDER        a container image's layers: their bytes, and the tar in them
    kiln_store_reader.py STORE verify                    hashes everything

With --ledger in front of STORE names and sets come from the ledger's blobs, as after the loss of both databases.
"""
import hashlib, json, os, re, sqlite3, struct, subprocess, sys, tempfile, zlib
from pathlib import Path
from urllib.parse import quote

BLOCK = 4096
NONE = bytes(32)


class Damaged(Exception):
    pass


def need(good, what):
    if not good:
        raise Damaged(what)


def sha256(data):
    return hashlib.sha256(data).digest()


def oci(digest):
    return "sha256:" + digest.hex()


def parse_oci(text):
    need(text is None or re.fullmatch(r"sha256:[0-9a-f]{64}", text), f"'{text}' is no digest")
    return bytes.fromhex(text[7:]) if text else None


def canonical(value):
    """Canonical JSON; Python escapes control characters as the page says but for upper-case hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return re.sub(r"\\u00([01][0-9a-f])", lambda m: "\\u00" + m.group(1).upper(), text).encode()


class Bytes:
    """Numbers out of bytes, never beyond the end."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, size):
        need(0 <= size <= len(self.data) - self.at, "it is too short")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(value < 1 << 64, "a number has more than 64 bits")
                return value
        raise Damaged("a number has more than 64 bits")

    def zigzag(self):
        value = self.varint()
        return (value >> 1) ^ -(value & 1)


def unzstd(path):
    """The plain bytes of a zstd stream, in a file that is gone when it is closed."""
    out = tempfile.TemporaryFile()
    done = subprocess.run(["zstd", "-dcq", str(path)], stdout=out, stderr=subprocess.PIPE)
    need(done.returncode == 0, f"{path}: zstd says {done.stderr.decode().strip()}")
    return out


class Segment:
    def __init__(self, path, name):
        data = path.read_bytes()
        need(sha256(data) == name, f"segment {name.hex()} does not have its digest")
        head = Bytes(data)
        need(head.number(4) == 0x184D2A50 and head.number(4) == 16 and head.take(8) == b"KILNSEG1", "no segment")
        need(head.number(4) == 1, "a segment of another version")
        self.kind = head.number(4)
        need(self.kind in (0, 1), "a segment of an unknown class")
        self.digests = []  # by frame
        self.first = []    # of a frame's blocks in the plain bytes
        blocks = 0
        for offset, size, count, encoding in self.footer(data):
            self.digests.append(self.frame(data, offset, size, count, encoding))
            self.first.append(blocks)
            blocks += count
        self.plain = unzstd(path)
        need(self.plain.seek(0, 2) == blocks * BLOCK, "a segment unpacks to another size")

    @staticmethod
    def footer(data):
        tail = Bytes(data, len(data) - 24)
        frames, size, check = tail.number(4), tail.number(4), tail.take(8)
        need(tail.take(8) == b"KILNEND1" and size == 8 + 16 * frames + 24 and size <= len(data) - 24, "a segment's footer is not whole")
        start = len(data) - size
        footer = Bytes(data, start)
        need(footer.number(4) == 0x184D2A52 and footer.number(4) == size - 8, "a segment's footer is none")
        need(sha256(data[start + 8 : -24])[:8] == check, "a footer does not have its check")
        at = 24
        for _ in range(frames):
            offset, length, count, encoding, zero = (footer.number(n) for n in (8, 4, 1, 1, 2))
            need(offset == at and 1 <= count <= 32 and encoding in (1, 2) and zero == 0, "a footer makes no sense")
            at += length
            yield offset, length, count, encoding
        need(at == start, "frames do not fill their segment")

    @staticmethod
    def frame(data, offset, size, count, encoding):
        head = Bytes(data, offset)
        need(head.number(4) == 0x184D2A51 and head.number(4) == 16 + 32 * count and head.take(4) == b"KFR1", "a frame has no head")
        need((head.number(1), head.number(1)) == (encoding, count), "a frame is not what the footer says")
        head.number(2)  # the engine, which says nothing about the blocks
        need(head.number(4) + 24 + 32 * count == size, "a frame is not as long as the footer says")
        check, digests = head.take(4), head.take(32 * count)
        need(sha256(digests)[:4] == check, "a frame's digests do not have their check")
        if encoding == 2:
            length = count * BLOCK
            prefix = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", length) + (length * 8 + 1).to_bytes(3, "little")
            need(head.take(12) == prefix, "a frame of encoding 2 does not start as it should")
        return [digests[i : i + 32] for i in range(0, len(digests), 32)]

    def block(self, position):
        frame, number = divmod(position, 32)
        need(frame < len(self.digests) and number < len(self.digests[frame]), "a map leads beyond a frame")
        self.plain.seek((self.first[frame] + number) * BLOCK)
        data = self.plain.read(BLOCK)
        need(sha256(data) == self.digests[frame][number], "a block does not have its digest")
        return data, self.digests[frame][number]

    def verify(self):
        for frame, digests in enumerate(self.digests):
            for number in range(len(digests)):
                self.block(frame * 32 + number)


class Map:
    def __init__(self, store, data):
        self.store = store
        data = Bytes(data)
        need(data.take(8) == b"KILNMAP1" and data.number(4) == 1, "a map of another version")
        self.kind, self.size = data.number(4), data.number(8)
        segments, zero, runs = data.number(4), data.number(4), data.number(8)
        need(self.kind in (0, 1) and zero == 0 and self.size <= 1 << 46 and segments <= 65535, "a map's head makes no sense")
        self.segments = [data.take(32) for _ in range(segments)]
        self.runs, block, position = [], 0, 0
        for _ in range(runs):
            gap, count, segment, step = data.varint(), data.varint(), data.varint(), data.zigzag()
            need(count >= 1 and segment < segments and position + step >= 0, "a map's run makes no sense")
            self.runs.append((block + gap, count, self.segments[segment], position + step))
            block, position = block + gap + count, position + step + count
        need(block * BLOCK < self.size + BLOCK and data.at == len(data.data), "a map's runs do not fit it")

    def blocks(self):
        for first, count, name, position in self.runs:
            for i in range(count):
                segment, place = self.store.place(name, position + i)
                need(self.kind == 0 or segment.kind == 1, "a public map refers to a private segment")
                yield (first + i, *segment.block(place))

    def find(self, block):
        for first, count, name, position in self.runs:
            if first <= block < first + count:
                return name, position + block - first
        raise Damaged("a map leads to a block that was not kept when its segment was repacked")

    def content(self):
        h = hashlib.sha256()
        for number, data, digest in self.blocks():
            if any(data):
                h.update(struct.pack("<Q", number) + digest)
        return h.digest()

    def write(self, path):
        with open(path, "wb") as f:
            f.truncate(self.size)
            for number, data, _ in self.blocks():
                f.seek(number * BLOCK)
                f.write(data[: self.size - number * BLOCK])

    def read_all(self):
        out = bytearray(self.size)
        for number, data, _ in self.blocks():
            data = data[: self.size - number * BLOCK]
            out[number * BLOCK : number * BLOCK + len(data)] = data
        return bytes(out)


class Moved(Map):
    """Where the blocks of a repacked segment are now."""

    def __init__(self, store, data, name):
        head = Bytes(data)
        need(head.take(8) == b"KILNMOV1" and head.number(4) == 1, "a table of a moved segment of another version")
        frames = head.number(4)
        need(head.take(32) == name and sha256(data[:-32]) == data[-32:], "a table of a moved segment does not have its digest")
        super().__init__(store, data[48:-32])
        need(self.size == frames * 32 * BLOCK, "a table of a moved segment does not fit it")


# --- the encoder of layers --------------------------------------------------------------------------------------------------

CHUNK, WINDOW, TOKENS = 262144, 32768, 16384
LENGTHS = [(3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 1), (13, 1), (15, 1), (17, 1), (19, 2), (23, 2), (27, 2), (31, 2),
           (35, 3), (43, 3), (51, 3), (59, 3), (67, 4), (83, 4), (99, 4), (115, 4), (131, 5), (163, 5), (195, 5), (227, 5), (258, 0)]
DISTANCES = [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (7, 1), (9, 2), (13, 2), (17, 3), (25, 3), (33, 4), (49, 4), (65, 5), (97, 5), (129, 6), (193, 6),
             (257, 7), (385, 7), (513, 8), (769, 8), (1025, 9), (1537, 9), (2049, 10), (3073, 10), (4097, 11), (6145, 11), (8193, 12), (12289, 12),
             (16385, 13), (24577, 13)]
ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
PRE_EXTRA = {16: 2, 17: 3, 18: 7}


def spread(bases, last):
    table = [0] * (last + 1)
    for symbol, (base, extra) in enumerate(bases):
        for value in range(base, min(last, base + (1 << extra) - 1) + 1):
            table[value] = symbol
    return table


LENGTH_SYMBOL, DISTANCE_SYMBOL = spread(LENGTHS, 258), spread(DISTANCES, 32768)
FIXED = ([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8, [5] * 30)


class Bits:
    def __init__(self):
        self.out, self.value, self.count = bytearray(), 0, 0

    def put(self, value, count):
        self.value |= value << self.count
        self.count += count
        while self.count >= 8:
            self.out.append(self.value & 0xFF)
            self.value >>= 8
            self.count -= 8

    def align(self):
        if self.count:
            self.put(0, 8 - self.count)


def code_lengths(frequencies, limit):
    leaves = [(f, s) for s, f in enumerate(frequencies) if f]
    for symbol, frequency in enumerate(frequencies):
        if len(leaves) >= 2:
            break
        if not frequency:
            leaves.append((1, symbol))
    leaves.sort()
    queue, inner = [(f, None) for f, _ in leaves], []  # weight, children
    nodes = list(queue)
    one = two = 0
    for _ in range(len(leaves) - 1):
        picked = []
        for _ in range(2):
            if one < len(nodes) and (two >= len(inner) or nodes[one][0] <= inner[two][0]):
                picked.append(("leaf", one, nodes[one][0]))
                one += 1
            else:
                picked.append(("inner", two, inner[two][0]))
                two += 1
        inner.append((picked[0][2] + picked[1][2], picked))
    counts = [0] * 300
    depth = {len(inner) - 1: 0}
    for number in range(len(inner) - 1, -1, -1):
        for kind, child, _ in inner[number][1]:
            if kind == "leaf":
                counts[depth[number] + 1] += 1
            else:
                depth[child] = depth[number] + 1
    for d in range(limit + 1, len(counts)):
        counts[limit] += counts[d]
        counts[d] = 0
    kraft = sum(counts[d] << (limit - d) for d in range(1, limit + 1))
    while kraft > 1 << limit:
        counts[limit] -= 1
        for d in range(limit - 1, 0, -1):
            if counts[d]:
                counts[d] -= 1
                counts[d + 1] += 2
                break
        kraft -= 1
    lengths, at = [0] * len(frequencies), 0
    for d in range(limit, 0, -1):
        for _ in range(counts[d]):
            lengths[leaves[at][1]] = d
            at += 1
    return lengths


def codes(lengths):
    """RFC 1951, 3.2.2; the bits reversed, since codes are sent from their highest bit."""
    code, out = 0, {}
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                out[symbol] = (int(format(code, f"0{bits}b")[::-1], 2), bits)
                code += 1
        code <<= 1
    return out


class Encoder:
    def __init__(self, data):
        self.bits = Bits()
        self.bits.out += bytes.fromhex("1f8b08000000000000ff")
        starts = range(0, max(len(data), 1), CHUNK)
        for start in starts:
            window = min(start, WINDOW)
            self.chunk(data[start - window : start + CHUNK], window, start == starts[-1])
        self.bits.align()
        self.bits.out += struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)

    def chunk(self, buffer, start, last):
        self.buffer, self.end = buffer, len(buffer)
        self.by4, self.by3, self.before = {}, {}, [None] * self.end
        self.entered = 0
        self.enter_to(start)
        self.begin(start)
        p = start
        while p < self.end:
            match = self.find(p, 0, 48)
            if not match:
                self.tokens.append(buffer[p])
                p += 1
            else:
                p = self.step(p, match)
            if len(self.tokens) >= TOKENS:
                self.block(p, False)
        if self.tokens or last:
            self.block(self.end, last)

    def begin(self, at):
        self.tokens, self.block_start = [], at

    def enter_to(self, end):
        while self.entered < min(end, self.end - 3):
            self.enter(self.entered)

    def hashes(self, p):
        v = int.from_bytes(self.buffer[p : p + 4], "little")
        return (v * 2654435761 & 0xFFFFFFFF) >> 16, ((v & 0xFFFFFF) * 506832829 & 0xFFFFFFFF) >> 18

    def enter(self, p):
        h4, h3 = self.hashes(p)
        self.before[p] = self.by4.get(h4)
        self.by4[h4] = self.by3[h3] = p
        self.entered = p + 1

    def find(self, p, best, depth):
        if self.end - p < 4:
            return None
        buffer, limit, match = self.buffer, min(258, self.end - p), None
        h4, h3 = self.hashes(p)
        if best < 3:
            q = self.by3.get(h3)
            if q is not None and p - q <= 4096 and buffer[q : q + 3] == buffer[p : p + 3]:
                match, best = (3, p - q), 3
        best = max(best, 3)
        q = self.by4.get(h4)
        while q is not None and p - q <= 32767 and depth > 0 and best < limit:
            if buffer[q : q + best + 1] == buffer[p : p + best + 1]:
                n = best + 1
                while n < limit and buffer[q + n] == buffer[p + n]:
                    n += 1
                match, best = (n, p - q), n
                if n >= 96:
                    break
            q, depth = self.before[q], depth - 1
        self.enter(p)
        return match

    def step(self, p, match):
        while match[0] < 96 and len(self.tokens) < TOKENS:
            later = self.find(p + 1, match[0] - 1, 24)
            if not later or not self.better(later, match):
                break
            self.tokens.append(self.buffer[p])
            p, match = p + 1, later
        self.tokens.append(match)
        self.enter_to(p + match[0])
        return p + match[0]

    @staticmethod
    def better(later, now):
        log2 = lambda n: n.bit_length() - 1
        return later[0] >= now[0] and 4 * (later[0] - now[0]) + log2(now[1]) - log2(later[1]) > 2

    def block(self, end, last):
        literals, distances = [0] * 286, [0] * 30
        for token in self.tokens:
            if isinstance(token, int):
                literals[token] += 1
            else:
                literals[257 + LENGTH_SYMBOL[token[0]]] += 1
                distances[DISTANCE_SYMBOL[token[1]]] += 1
        literals[256] = 1
        size = end - self.block_start
        dynamic = code_lengths(literals, 15), code_lengths(distances, 15)
        header, header_cost = self.header(*dynamic)
        extra = sum(f * LENGTHS[s][1] for s, f in enumerate(literals[257:])) + sum(f * DISTANCES[s][1] for s, f in enumerate(distances))
        cost = lambda code: extra + sum(f * l for f, l in zip(literals, code[0])) + sum(f * l for f, l in zip(distances, code[1]))
        stored = 8 * size + 39 * max(1, -(-size // 65535))
        fixed, other = cost(FIXED), cost(dynamic) + header_cost
        if stored <= fixed and stored <= other:
            self.put_stored(self.buffer[self.block_start : end], last)
        else:
            self.bits.put(int(last), 1)
            self.bits.put(1 if fixed <= other else 2, 2)
            if fixed > other:
                for value, count in header:
                    self.bits.put(value, count)
            self.put_tokens(FIXED if fixed <= other else dynamic)
        self.begin(end)

    def put_stored(self, data, last):
        pieces = [data[i : i + 65535] for i in range(0, len(data), 65535)] or [b""]
        for i, piece in enumerate(pieces):
            self.bits.put(int(last and i == len(pieces) - 1), 1)
            self.bits.put(0, 2)
            self.bits.align()
            self.bits.out += struct.pack("<HH", len(piece), len(piece) ^ 0xFFFF) + piece

    def put_tokens(self, lengths):
        literals, distances = codes(lengths[0]), codes(lengths[1])
        for token in self.tokens:
            if isinstance(token, int):
                self.bits.put(*literals[token])
                continue
            for value, table, code, offset in ((token[0], LENGTH_SYMBOL, literals, 257), (token[1], DISTANCE_SYMBOL, distances, 0)):
                symbol = table[value]
                base, extra = (LENGTHS if offset else DISTANCES)[symbol]
                self.bits.put(*code[symbol + offset])
                self.bits.put(value - base, extra)
        self.bits.put(*literals[256])

    @staticmethod
    def header(literals, distances):
        literals, distances = list(literals), list(distances)
        while len(literals) > 257 and not literals[-1]:
            literals.pop()
        while len(distances) > 1 and not distances[-1]:
            distances.pop()
        symbols, all_lengths, i = [], literals + distances, 0
        while i < len(all_lengths):
            length, run = all_lengths[i], 1
            while i + run < len(all_lengths) and all_lengths[i + run] == length:
                run += 1
            i += run
            if length:
                symbols.append((length, 0))
                run -= 1
            while run >= 3:
                n = min(run, 6 if length else 138)
                symbols.append((16, n - 3) if length else (17, n - 3) if n <= 10 else (18, n - 11))
                run -= n
            symbols += [(length, 0)] * run
        frequencies = [0] * 19
        for symbol, _ in symbols:
            frequencies[symbol] += 1
        pre = code_lengths(frequencies, 7)
        count = 19
        while count > 4 and not pre[ORDER[count - 1]]:
            count -= 1
        out = [(len(literals) - 257, 5), (len(distances) - 1, 5), (count - 4, 4)] + [(pre[ORDER[k]], 3) for k in range(count)]
        code = codes(pre)
        for symbol, extra in symbols:
            out += [code[symbol], (extra, PRE_EXTRA.get(symbol, 0))]
        return out, sum(n for _, n in out)


# --- layers -----------------------------------------------------------------------------------------------------------------


class Recipe:
    def __init__(self, store, digest):
        data = Bytes(store.blob(digest))
        need(data.take(8) == b"KILNLYR1", "no recipe")
        self.encoder = data.number(4)
        need(self.encoder in (0, 1), "a recipe of another version")
        data.number(4)
        self.diff_id, self.digest = data.take(32), data.take(32)
        self.size, self.tar_size, map_digest = data.number(8), data.number(8), data.take(32)
        pieces, literals = data.number(8), data.number(8)
        self.pieces = []
        for _ in range(pieces):
            literal, payload = data.varint(), data.varint()
            self.pieces.append((literal, payload, data.varint() if payload else 0))
        self.literals = data.take(literals)
        need(data.at == len(data.data), "a recipe has bytes behind its end")
        self.payload = Map(store, store.blob(map_digest)).read_all() if map_digest != NONE else b""

    def tar(self):
        out, at = bytearray(), 0
        for literal, payload, block in self.pieces:
            need(at + literal <= len(self.literals) and block * BLOCK + payload <= len(self.payload), "a recipe leads beyond its parts")
            out += self.literals[at : at + literal] + self.payload[block * BLOCK : block * BLOCK + payload]
            at += literal
        need(at == len(self.literals) and len(out) == self.tar_size, "a recipe's lengths do not add up")
        need(sha256(out) == self.diff_id, "a layer's tar does not have its digest")
        return bytes(out)


# --- names and sets ---------------------------------------------------------------------------------------------------------


class Databases:
    def __init__(self, root):
        self.state = self.open(root / "state.db", 0x4B494C53, (6,))
        self.catalog = self.open(root / "catalog.db", 0x4B494C43, (1, 2, 3, 4))

    @staticmethod
    def open(path, application, versions):
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        need(db.execute("PRAGMA application_id").fetchone()[0] == application, f"{path} is no database of kiln")
        need(db.execute("PRAGMA user_version").fetchone()[0] in versions, f"{path} has another version")
        return db

    def names(self):
        return self.state.execute("SELECT name, kind, image FROM name").fetchall()

    def image(self, digest, name):
        row = self.catalog.execute("SELECT number, map FROM image WHERE id = ? ORDER BY name = ? DESC, number DESC", (digest, name)).fetchone()
        need(row, f"the catalog has no image {oci(digest)}")
        return row[1], self.catalog.execute("SELECT layer, recipe FROM image_layer WHERE image = ? ORDER BY place", (row[0],)).fetchall()

    def logs(self):
        names = "number, at, action, name, kind, channel, image, who, note, extra, previous, hash"
        for row in self.state.execute(f"SELECT {names} FROM channel_log ORDER BY number"):
            yield "channel_log", dict(zip(names.split(", "), row))
        names = "number, at, epoch, grp, who, record, previous, hash"
        for row in self.state.execute(f"SELECT {names} FROM journal ORDER BY number"):
            yield "journal", dict(zip(names.split(", "), row))


class Ledger:
    COLUMNS = {
        "channel_log": "number at action name kind channel image who note extra previous hash",
        "journal": "number at epoch grp who record previous hash",
    }

    def __init__(self, store):
        self.tables = {}
        for document in self.chain(store):
            for table, rows in document["rows"].items():
                for row in rows:
                    self.tables.setdefault(table, {})[self.key(table, row)] = row
            for table, keys in document["gone"].items():
                for key in keys:
                    self.tables.get(table, {}).pop(tuple(key), None)

    @staticmethod
    def key(table, row):
        one = table in ("channel_log", "journal", "signature", "identity", "journal_epoch", "published")
        return (row[0], row[0] if one else row[1])

    @staticmethod
    def chain(store):
        head = store.root / "ledger" / "head"
        if head.exists():
            return [json.loads(store.blob(parse_oci(link["blob"]))) for link in json.loads(head.read_bytes())["chain"]]
        found = {}
        for digest, path in store.blob_files():
            data = store.blob(digest)
            if data.startswith(b"{") and b'"state ledger 1"' in data:
                document = json.loads(data)
                if document.get("kiln") == "state ledger 1":
                    found[digest] = document
        for end in sorted((d for d in found.values() if d["complete"]), key=lambda d: -d["at"]):
            chain = [end]
            while chain[0]["previous"] and parse_oci(chain[0]["previous"]) in found:
                chain.insert(0, found[parse_oci(chain[0]["previous"])])
            if not chain[0]["previous"]:
                return chain
        raise Damaged("no ledger was found")

    def names(self):
        return [(row[0], row[1], parse_oci(row[2])) for row in self.tables.get("name", {}).values()]

    def image(self, digest, name):
        best = None
        for _, _, text in self.tables.get("published", {}).values():
            record = json.loads(text)
            for image in record["images"]:
                rank = (record["name"] == name, image["number"])
                if parse_oci(image["id"]) == digest and (best is None or rank > best[0]):
                    best = (rank, image)
        need(best, f"the ledger has no image {oci(digest)}")
        return parse_oci(best[1]["map"]), [(parse_oci(layer), parse_oci(recipe)) for layer, recipe in best[1]["layers"]]

    def logs(self):
        for table, columns in self.COLUMNS.items():
            for row in sorted(self.tables.get(table, {}).values(), key=lambda r: r[0]):
                entry = dict(zip(columns.split(), row))
                for field in ("image", "previous", "hash"):
                    if field in entry:
                        entry[field] = parse_oci(entry[field])
                yield table, entry


def verify_logs(logs):
    before, number = {}, {"channel_log": 0, "journal": 0}
    for table, row in logs:
        number[table] += 1
        need(row["number"] == number[table], f"{table} lacks entry {number[table]}")
        chain = (table, row.get("grp"))
        need(row["previous"] == before.get(chain), f"entry {row['number']} of {table} does not follow the one before")
        fields = {k: v for k, v in row.items() if k not in ("hash", "number", "grp")}
        for field in ("image", "previous"):
            if fields.get(field):
                fields[field] = oci(fields[field])
        for field in ("extra", "record"):
            if fields.get(field):
                fields[field] = json.loads(fields[field])
        if table == "journal":
            fields.update(number=row["number"], group=row["grp"])
        else:
            fields = {k: v for k, v in fields.items() if v is not None}
        need(sha256(canonical(fields)) == row["hash"], f"entry {row['number']} of {table} does not have its hash")
        before[chain] = row["hash"]


# --- the store --------------------------------------------------------------------------------------------------------------


class Store:
    def __init__(self, path, ledger=False):
        self.root = Path(path)
        need((self.root / "format").read_bytes() == b"kiln-store 1\n", f"'{path}' is no store that this reader knows")
        self.segments, self.moved = {}, {}
        self.index = Ledger(self) if ledger else Databases(self.root)

    def segment(self, name):
        if name not in self.segments:
            self.segments[name] = Segment(self.root / "segments" / name.hex()[:2] / name.hex(), name)
        return self.segments[name]

    def place(self, name, position):
        """The segment that has the block now, and its position there."""
        for _ in range(1000):
            path = self.root / "segments" / name.hex()[:2] / name.hex()
            if name in self.segments or path.exists():
                return self.segment(name), position
            if name not in self.moved:
                self.moved[name] = Moved(self, Path(f"{path}.moved").read_bytes(), name)
            name, position = self.moved[name].find(position)
        raise Damaged("tables of moved segments lead in a circle")

    def blob(self, digest):
        path = self.root / "blobs" / digest.hex()[:2] / digest.hex()
        if path.exists():
            data = path.read_bytes()
        else:
            with unzstd(f"{path}.zst") as plain:
                plain.seek(0)
                data = plain.read()
        need(sha256(data) == digest, f"blob {digest.hex()} does not have its digest")
        return data

    def blob_files(self):
        for path in sorted((self.root / "blobs").glob("*/*")):
            name = path.name[:-4] if path.name.endswith(".zst") else path.name
            need(re.fullmatch("[0-9a-f]{64}", name) and path.parent.name == name[:2], f"{path} has no name of a blob")
            yield bytes.fromhex(name), path

    def find(self, name, kind):
        for one, its_kind, digest in self.index.names():
            if (one, its_kind) == (name, kind):
                return digest
        raise Damaged(f"there is no {kind} '{name}'")

    def disk(self, name):
        digest = self.find(name, "disk")
        config = json.loads(self.blob(digest))
        disk = Map(self, self.blob(self.index.image(digest, name)[0]))
        need(disk.size == config["size"] and oci(disk.content()) == config["content"], f"the disk '{name}' is not what its config says")
        return disk

    def layer(self, digest, recipe):
        """Its bytes, and the tar in them where kiln made it."""
        if recipe is None:
            return self.blob(digest), None
        made = Recipe(self, recipe)
        tar = made.tar()
        data = bytes(Encoder(tar).bits.out) if made.encoder == 1 else tar
        need(len(data) == made.size and made.digest == digest and sha256(data) == digest, f"layer {oci(digest)} does not come back")
        return data, tar

    def layers(self, name):
        digest = self.find(name, "oci")
        self.blob(digest)
        return [(layer, *self.layer(layer, recipe)) for layer, recipe in self.index.image(digest, name)[1]]

    def verify(self):
        for path in sorted((self.root / "segments").glob("*/*")):
            if path.suffix == ".moved":
                Moved(self, path.read_bytes(), bytes.fromhex(path.stem))
            else:
                self.segment(bytes.fromhex(path.name)).verify()
        for digest, _ in self.blob_files():
            self.blob(digest)
        verify_logs(self.index.logs())
        for name, kind, _ in self.index.names():
            (self.disk if kind == "disk" else self.layers)(name)


def main(words):
    ledger = words[:1] == ["--ledger"]
    words = words[ledger:]
    if len(words) != {"list": 2, "verify": 2, "disk": 4, "layers": 4}.get(words[1] if len(words) > 1 else ""):
        sys.exit(__doc__)
    store, verb = Store(words[0], ledger), words[1]
    if verb == "list":
        for name, kind, digest in sorted(store.index.names()):
            print(name, kind, oci(digest))
    elif verb == "disk":
        store.disk(words[2]).write(words[3])
    elif verb == "layers":
        out = Path(words[3])
        out.mkdir(parents=True, exist_ok=True)
        for digest, data, tar in store.layers(words[2]):
            (out / digest.hex()).write_bytes(data)
            if tar is not None:
                (out / f"{digest.hex()}.tar").write_bytes(tar)
            print(oci(digest))
    else:
        store.verify()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Damaged, OSError, sqlite3.Error, ValueError) as problem:
        sys.exit(f"kiln_store_reader: {problem}")
