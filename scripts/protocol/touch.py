"""Writes of HEAD by its owner that leave the manifest as it is: a sign of life, and giving back a job that cannot be run here, or of
which it is not known whether the last write was applied."""
from __future__ import annotations

from typing import Iterator

from search import Step
from state import Head, InFlight, State, Worker, put_worker


class TouchSteps:
    def touches(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        """Before the first upload: while it restores or feeds the prompt, or when either is refused. A sign of life also while uploads are
        on their way, but not between a manifest and its swap. After a write without an answer: it is not found out, but the job is given back."""
        if s.give_ups_left and w.pc in ("commit412", "flush412"):
            yield Step("give up", f"{self.name(i, w)} gives up finding out", put_worker(
                s, i, Worker("release412", w.commits_left, w.seen, w.epoch, nonce=-1), give_ups_left=s.give_ups_left - 1))
        if w.pc == "put_manifest" and s.beats_left:
            yield from self.touch(s._replace(beats_left=s.beats_left - 1), i, w, "beat")
        if w.segment or w.pc not in ("get_manifest", "get_segments", "upload"):
            return
        if s.beats_left:
            yield from self.touch(s._replace(beats_left=s.beats_left - 1), i, w, "beat")
        if s.releases_left:
            yield from self.touch(s._replace(releases_left=s.releases_left - 1), i, w, "release")

    def touch(self, s: State, i: int, w: Worker, kind: str) -> Iterator[Step]:
        state = "running" if kind == "beat" else "parked"
        nonce = self.nonce(i, w.seen.version) + 20_000 * ("beat-nonce" not in self.mutate)
        head = s.head._replace(version=w.seen.version + 1, epoch=w.epoch, write_nonce=nonce, state=state)
        text = f"{self.name(i, w)} {'says that it lives' if kind == 'beat' else 'gives the job back'}"
        refused = w._replace(pc=f"{kind}412", nonce=head.write_nonce)
        if s.late_left and kind == "beat":  # whether it is applied changes nothing for its sender, who goes on
            late = tuple(sorted((*s.in_flight, InFlight(w.seen.version, head))))
            yield Step("timeout", f"{text}, gives up waiting; it is still in flight", put_worker(s, i, w, late_left=s.late_left - 1, in_flight=late))
        if s.head.version != w.seen.version:
            yield Step(f"{kind} refused", f"{text} -> 412", put_worker(s, i, refused))
            return
        after, fencing = s._replace(head=head), self.fencing(s, w.epoch)
        yield self.touched(kind, f"{text}: {head}", after, i, w, head, fencing)
        if s.lost_left:
            yield Step("ack lost", f"{text}: {head} is applied, reply lost; resend -> 412",
                       put_worker(after, i, refused, lost_left=s.lost_left - 1), fencing)

    def touched(self, kind: str, text: str, s: State, i: int, w: Worker, head: Head, broken: tuple[str, ...] = ()) -> Step:
        if w.segment is None:
            pc = "get_manifest" if w.pc == "beat412" else w.pc
        else:  # a fence that it learns of by its own sign of life has passed its uploads all the same
            pc = "upload" if w.segment.version < head.gc and "beat-keeps-names" not in self.mutate else "put_manifest"
        after = w._replace(pc=pc, seen=head, nonce=0) if kind == "beat" else Worker("idle", w.commits_left)
        return Step(kind, text, put_worker(s, i, after), broken)

    def after_touch(self, s: State, i: int, w: Worker, kind: str) -> Iterator[Step]:
        me = self.name(i, w)
        if s.head.write_nonce == w.nonce:
            yield self.touched(f"{kind} found mine", f"{me} reads {s.head}: writeNonce is mine, it had succeeded", s, i, w, s.head)
        elif s.head.epoch == w.epoch and kind == "release" and s.head.state != "running" and "release-over" not in self.mutate:
            yield self.touched("let go before", f"{me} reads {s.head}: its own write has let the job go", s, i, w, s.head)
        elif s.head.epoch == w.epoch or "release-fenced" in self.mutate:
            yield from self.touch(s, i, w._replace(seen=s.head), kind)
        else:
            yield self.stop("fenced", f"{me} reads {s.head}: fenced, stops", s, i)

    def w_beat412(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        yield from self.after_touch(s, i, w, "beat")

    def w_release412(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        yield from self.after_touch(s, i, w, "release")
