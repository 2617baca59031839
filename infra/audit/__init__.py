"""Proof that the event log is what was recorded: seals, their keys, the check of all of them, bundles to take away.

An event's *leaf* is the SHA-256 of its row. A *seal* holds the leaves of the next events and the digest of the seal
before, and its own digest is signed: no stored event can be changed, removed, inserted or moved without breaking the
seals from there on.
"""
