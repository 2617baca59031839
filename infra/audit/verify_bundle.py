# It runs on Pythons older than ours, by itself.
# ruff: noqa: PLC0415, BLE001, FURB116, FURB162
# mypy: ignore-errors
"""Checks a bundle that `wattledger audit export` made, with Python 3.9 or later and nothing else.

    python verify.py                           # the bundle that this script lies in
    python verify.py BUNDLE                    # a directory or a .zip
    python verify.py --public-key FINGERPRINT  # a sealing key that you know from elsewhere: see below
    python verify.py --anchor DIGEST@N         # a seal that you kept earlier
    python verify.py --pure                    # not even the package `cryptography`, should it be there

Exit status 0: intact; 1: tampered with, and the first bad position is named; 2: wrong usage.

What is checked: each event's hash is in its seal, each seal has the digest of the seal before it and a signature, each
sealing key is endorsed by the one before it, and the newest has signed the manifest, which has the hashes of all files.
In a bundle of one organisation or of some time the hashes of all other events are there, but not the events.

What it rests on: whoever changes a bundle can also put in keys of his own, sign all of it anew, and change this script.
So take the script from where you trust it, and give a fingerprint (`wattledger audit keys`) or a seal that you got by
another way. Without either, what is proven is only that the bundle is as somebody signed it. Which events an export for
one organisation has to show is said by who made it: the hashes don't tell whose the hidden events are.

Files: `events.ndjson` has an event a line, `seals.ndjson` a seal, `keys.json` the sealing keys, `catalogue.json` every
kind of event with the JSON Schema of its state, `manifest.json` what was exported and the hashes of the files. Words
that begin with `veiled:` are names and users' ids, which only their organisation can read: equal ones are equal.

Lists of bytes that are hashed or signed are framed: before each of them stands its length (4 bytes, big-endian).
 - leaf of an event: SHA-256 of the number of columns (8, in 2 bytes), then, framed, position, stream id, version,
   topic, state, event id, 0x01 with the metadata, time; integers have 8 bytes, the time is in microseconds since 2000
 - digest of a seal: SHA-256 of, framed, "wattledger seal 1", number, first and last position, time (microseconds since
   1970), digest of the seal before, fingerprint of the key, leaves; its signature is of the digest
 - endorsement of a key: signature of, framed, "wattledger sealing key 1", number, public key, time (as above)
 - manifest.sig: signature of, framed, "wattledger bundle 1", the bytes of manifest.json
Signatures are Ed25519 (RFC 8032); a fingerprint is the SHA-256 of a public key.
"""

import argparse
import base64
import hashlib
import itertools
import json
import re
import struct
import sys
import uuid
import zipfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


class Tampered(Exception):
    """The bundle is not what was signed"""


def check(root, pinned=None, anchors=None, pure=False):
    """Raises Tampered, else returns what to say. `root` is a path of a directory or of an opened zip file."""
    text = read(root, "manifest.json")
    manifest = json.loads(text)
    keys = Keys(json.loads(read(root, "keys.json")), pinned, verifier(pure))
    events, last = check_seals(root, keys, anchors or {}, whole=manifest["whole"])
    check_files(root, manifest["files"])
    signed = json.loads(read(root, "manifest.sig"))
    require(
        keys.signed(signed["key"], signed["signature"], framed(b"wattledger bundle 1", text)),
        "manifest.json is not as it was signed",
    )
    require(keys.believed(signed["key"]), "manifest.json is not signed by the pinned key or one that it endorsed")
    require(manifest["events"] == events, f"{manifest['events']} events were exported, {events} are there")
    require(manifest["anchor"] == last, f"the bundle was made up to seal {manifest['anchor']}, it ends at {last}")
    trust = "by the key that you named" if pinned else "by keys that only the bundle itself vouches for"
    return f"Intact: {events} events, sealed up to {last}, {trust}."


def check_seals(root, keys, anchors, whole):
    """Events and seals side by side; how many events there are and the name of the last seal."""
    count, before = 0, None
    with root.joinpath("events.ndjson").open("rb") as lines, root.joinpath("seals.ndjson").open("rb") as seals:
        events = (json.loads(line) for line in lines)
        event = next(events, None)
        for seal in map(json.loads, seals):
            require(before or not whole or seal["number"] == 1, "seal 1 is missing")
            check_seal(seal, before, keys, anchors)
            leaves = bytes.fromhex(seal["leaves"])
            for position in range(seal["firstPosition"], seal["lastPosition"] + 1):
                if event is None or event["position"] != position:
                    require(not whole, f"position {position}: the event is missing, or not in its place")
                    continue
                offset = 32 * (position - seal["firstPosition"])
                require(leaf(event) == leaves[offset : offset + 32], f"position {position}: the event was changed")
                count, event = count + 1, next(events, None)
            before = seal
        require(event is None, f"position {event and event['position']}: no seal has it, or it is not in its place")
    number = before["number"] if before else 0
    for missing in anchors:
        require(missing <= number, f"seal {missing} of the anchor is missing: the bundle ends at seal {number}")
    return count, f"{before['digest']}@{number}" if before else None


def check_seal(seal, before, keys, anchors):
    number, first, last = seal["number"], seal["firstPosition"], seal["lastPosition"]
    told = f"seal {number} (positions {first} to {last})"
    if before is not None:
        require(number == before["number"] + 1, f"seal {before['number'] + 1} is missing")
        require(first == before["lastPosition"] + 1, f"{told} does not begin where the one before ends")
        require(seal["previous"] == before["digest"], f"{told} does not follow the one before")
        require(keys.number(before["key"]) <= keys.number(seal["key"]), f"{told} is by a key of the past")
    elif number == 1:
        require((first, seal["previous"]) == (1, "00" * 32), f"{told} is not the first one")
    leaves = bytes.fromhex(seal["leaves"])
    require(len(leaves) == 32 * (last - first + 1), f"{told} has another length")
    numbers = [int8(each) for each in (number, first, last, seal["sealedAt"])]
    parts = [b"wattledger seal 1", *numbers, bytes.fromhex(seal["previous"]), bytes.fromhex(seal["key"]), leaves]
    digest = hashlib.sha256(framed(*parts)).digest()
    require(digest.hex() == seal["digest"], f"{told} was changed: its digest is another")
    require(keys.signed(seal["key"], seal["signature"], digest), f"the signature of {told} is wrong")
    require(anchors.get(number, seal["digest"]) == seal["digest"], f"{told} is not the one of the anchor")


def check_files(root, files):
    there = {path.name for path in root.iterdir()} - {"manifest.json", "manifest.sig", "__pycache__"}
    require(there == set(files), f"files were added or removed: {', '.join(sorted(there ^ set(files)))}")
    for name, sha256 in files.items():
        digest = hashlib.sha256()
        with root.joinpath(name).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        require(digest.hexdigest() == sha256, f"{name} was changed")


class Keys:
    """The sealing keys, each endorsed by the one before; those from the pinned one on are believed."""

    def __init__(self, rows, pinned, verify):
        self._verify = verify
        self._keys = {}
        before = None
        for number, row in enumerate(rows, 1):
            public = bytes.fromhex(row["publicKey"])
            endorsed = framed(b"wattledger sealing key 1", int8(number), public, int8(row["madeAt"]))
            good = row["number"] == number and verify(before or public, bytes.fromhex(row["endorsement"]), endorsed)
            require(good, f"sealing key {number} is not endorsed by the one before it")
            self._keys[hashlib.sha256(public).hexdigest()] = (number, public)
            before = public
        require(pinned is None or pinned in self._keys, "the pinned key is not among the sealing keys")
        self._from = self.number(pinned) if pinned else 0

    def number(self, fingerprint):
        return self._keys.get(fingerprint, (0, b""))[0]

    def believed(self, fingerprint):
        return self.number(fingerprint) >= self._from

    def signed(self, fingerprint, signature, message):
        found = self._keys.get(fingerprint)
        return found is not None and self._verify(found[1], bytes.fromhex(signature), message)


def leaf(event):
    state = event["state"].encode() if "state" in event else base64.b64decode(event["stateBase64"], validate=True)
    metadata = b"\x01" + event["metadata"].encode()
    identity = (int8(event["position"]), uuid.UUID(event["streamId"]).bytes, int8(event["version"]))
    told = (event["topic"].encode(), state, uuid.UUID(event["eventId"]).bytes, metadata)
    recorded_at = datetime.fromisoformat(event["recordedAt"].replace("Z", "+00:00"))
    since = (recorded_at - datetime(2000, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)  # noqa: UP017
    return hashlib.sha256(struct.pack(">h", 8) + framed(*identity, *told, int8(since))).digest()


def framed(*parts):
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def int8(number):
    return struct.pack(">q", number)


def read(root, name):
    with root.joinpath(name).open("rb") as file:
        return file.read()


def require(holds, what):
    if not holds:
        raise Tampered(what)


def verifier(pure):
    """The check of an Ed25519 signature: (public key, signature, message) to bool."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return ed25519_verify
    if pure:
        return ed25519_verify

    def verify(public, signature, message):
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    return verify


def ed25519_verify(public, signature, message):
    """RFC 8032, 5.1.7, in extended coordinates."""
    if len(public) != 32 or len(signature) != 64:
        return False
    point, s = decompressed(public), int.from_bytes(signature[32:], "little")
    if point is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    minus = (P - point[0], point[1], 1, (P - point[0]) * point[1] % P)
    y = 4 * pow(5, P - 2, P) % P
    return compressed(added(times(s, decompressed(y.to_bytes(32, "little"))), times(k, minus))) == signature[:32]


def decompressed(data):
    number = int.from_bytes(data, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_1 % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return (x, y, 1, x * y % P)


def compressed(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def added(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(number, point):
    result = (0, 1, 1, 0)
    for bit in bin(number)[2:]:
        result = added(result, result)
        if bit == "1":
            result = added(result, point)
    return result


def words(given, pattern):
    """What a file or the words themselves name."""
    path = Path(given)
    return re.findall(pattern, path.read_text() if len(given) < 4096 and path.is_file() else given)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--public-key", metavar="FILE|FINGERPRINT")
    parser.add_argument("--anchor", metavar="FILE|DIGEST@N", action="append", default=[])
    parser.add_argument("--pure", action="store_true")
    options = parser.parse_args()
    pinned = words(options.public_key, r"\b[0-9a-f]{64}\b")[:1] if options.public_key else [None]
    kept = list(itertools.chain(*(words(each, r"\b([0-9a-f]{64})@(\d{1,18})\b") for each in options.anchor)))
    if not pinned or not options.bundle.exists() or (options.anchor and not kept):
        parser.error("no such bundle, or no key or anchor in what was given")
    try:
        root = zipfile.Path(options.bundle) if options.bundle.is_file() else options.bundle
        said = check(root, pinned[0], {int(number): digest for digest, number in kept}, options.pure)
    except Tampered as tampered:
        sys.stdout.write(f"TAMPERED: {tampered}.\n")
        return 1
    except Exception as error:
        sys.stdout.write(f"TAMPERED: it can't be read: {type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
