"""The state of one job for the commit model: what the store holds and what each actor remembers."""
from __future__ import annotations

from typing import NamedTuple

TERMINAL = ("done", "cancelled", "erased", "absent")


class Segment(NamedTuple):
    """s/<version>/<epoch>-<step>.seg; (step, epoch) identifies the bytes, <version> the copy.

    The random nonce of the real name is left out: here a writer never uploads a step twice under one version.
    """
    version: int
    epoch: int
    step: int

    def __str__(self) -> str:
        return f"s/{self.version}/{self.epoch}-{self.step}"

    def content(self) -> tuple[int, int]:
        return self.step, self.epoch


class Manifest(NamedTuple):
    """m/<version>-<digest>.json; the list of segments stands for both the content and the digest."""
    version: int
    segments: tuple[Segment, ...]
    trimmed: bool = False  # it says what the job has come to, and names none of its segments any more

    def __str__(self) -> str:
        said = " trimmed" if self.trimmed else ""
        return f"m/{self.version}[{', '.join(map(str, self.segments))}]{said}" if self.version >= 0 else "nothing"

    def content(self) -> tuple[tuple[int, int], ...]:
        return tuple(seg.content() for seg in self.segments)


NOTHING = Manifest(-1, ())  # what a tombstone names


class Head(NamedTuple):
    version: int  # bumped by every write; stands for the ETag
    epoch: int
    write_nonce: int
    gc: int  # the version that the last GC bump wrote, i.e. its fence
    manifest: Manifest
    state: str = "running"
    journal: tuple[Segment, ...] = ()  # steps that were flushed since the manifest

    def __str__(self) -> str:
        said = "" if self.state == "running" else f" {self.state}"
        flushed = f" + {', '.join(map(str, self.journal))}" if self.journal else ""
        return f"HEAD v{self.version} epoch {self.epoch} gc {self.gc} nonce {self.write_nonce}{said} -> {self.manifest}{flushed}"


ABSENT = Head(-1, 0, 0, 0, NOTHING, "absent")  # no object: only a broken erasure deletes HEAD


class Worker(NamedTuple):
    pc: str  # the next step: idle take take412 get_manifest get_segments upload put_manifest commit ...
    commits_left: int
    seen: Head | None = None  # the HEAD that the next CAS is conditional on
    epoch: int = 0
    base: tuple[Segment, ...] = ()  # what the next manifest extends
    step: int = 0  # the step of work in hand
    segment: Segment | None = None
    manifest: Manifest | None = None
    nonce: int = 0  # writeNonce of the CAS under way
    ahead: Segment | None = None  # uploaded for the commit after this one (--overlap)
    forgotten: frozenset = frozenset()  # flushed before its take, and of no use to it


class Gc(NamedTuple):
    pc: str  # idle cas list view delete stopped
    rounds_left: int
    seen: Head | None = None
    fence: int = 0
    names: frozenset = frozenset()  # listed, later: still to be deleted


class Outside(NamedTuple):
    """Who changes a job from outside: a cancel (expire and poison are the same step), an erasure, a second creation, and who lets go of its KV."""
    kind: str  # cancel erase create trim
    pc: str  # idle cas cas412 list delete put_trimmed trim trim412 stopped
    seen: Head | None = None
    nonce: int = 0
    names: frozenset = frozenset()
    manifest: Manifest | None = None  # put by a trim, and not in HEAD yet


class InFlight(NamedTuple):
    """A conditional PUT of HEAD whose sender gave up waiting; the store may still apply it."""
    if_match: int
    head: Head


class State(NamedTuple):
    head: Head | None  # None for seq
    objects: frozenset
    owner: int  # highest epoch ever taken: who ought to be able to commit
    workers: tuple[Worker, ...]
    gcs: tuple[Gc, ...]
    lost_left: int  # acknowledgements that may still be lost
    late_left: int
    crashes_left: int
    in_flight: tuple[InFlight, ...] = ()
    outside: tuple[Outside, ...] = ()
    beats_left: int = 0
    releases_left: int = 0
    give_ups_left: int = 0
    flushes_left: int = 0
    forgets_left: int = 0


def put_worker(s: State, i: int, w: Worker, **changes: object) -> State:
    return s._replace(workers=s.workers[:i] + (w,) + s.workers[i + 1:], **changes)


def put_gc(s: State, j: int, g: Gc, **changes: object) -> State:
    return s._replace(gcs=s.gcs[:j] + (g,) + s.gcs[j + 1:], **changes)


def put_outside(s: State, k: int, o: Outside, **changes: object) -> State:
    return s._replace(outside=s.outside[:k] + (o,) + s.outside[k + 1:], **changes)


def reachable(head: Head) -> frozenset:
    if head.manifest == NOTHING:
        return frozenset()
    return frozenset((head.manifest, *(() if head.manifest.trimmed else head.manifest.segments), *head.journal))


def names(objects: frozenset) -> str:
    return "{" + ", ".join(sorted(map(str, objects))) + "}"
