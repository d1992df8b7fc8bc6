"""What a worker does: take the lease, restore, then upload, put the manifest and commit, again and again."""
from __future__ import annotations

from typing import Iterator

from search import Step
from state import TERMINAL, Head, InFlight, Manifest, Segment, State, Worker, put_worker


class WorkerSteps:
    def name(self, i: int, w: Worker) -> str:
        return f"W{i + 1}" + (f"(epoch {w.epoch})" if w.epoch else "")

    def nonce(self, i: int, version: int, take: bool = False) -> int:
        """A writeNonce no other write carries: at most one write conditional on `version` succeeds."""
        return 100 * (i + 1) if "owner-nonce" in self.mutate else 1000 * take + 100 * (i + 1) + version

    def fencing(self, s: State, epoch: int) -> tuple[str, ...]:
        return ("fencing",) if epoch < s.owner else ()

    def over(self, head: Head) -> bool:
        return head.state in TERMINAL and "take-terminal" not in self.mutate

    def stop(self, event: str, text: str, s: State, i: int, broken: tuple[str, ...] = ()) -> Step:
        return Step(event, text, put_worker(s, i, Worker("stopped", 0)), broken)

    def w_idle(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        head = self.head(s)
        if self.over(head):
            yield self.stop("job is over", f"{self.name(i, w)} reads {head}: nothing to take", s, i)
        elif self.epoch_in_head:
            nw = w._replace(pc="take", seen=head, nonce=self.nonce(i, head.version, take=True))
            yield Step("get head", f"{self.name(i, w)} reads {head}", put_worker(s, i, nw))
        else:
            nw = w._replace(pc="get_manifest", seen=head, epoch=s.owner + 1)
            yield Step("take", f"{self.name(i, nw)} takes the outside lease, reads {head}",
                       put_worker(s, i, nw, owner=s.owner + 1))

    def w_take(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        if s.head.version != w.seen.version:
            yield Step("take refused", f"{self.name(i, w)} CAS epoch -> 412",
                       put_worker(s, i, w._replace(pc="take412")))
            return
        state = "running" if s.head.state == "parked" else s.head.state  # a job that is over is not looked at here: take-terminal
        head = s.head._replace(version=s.head.version + 1, epoch=s.head.epoch + 1, write_nonce=w.nonce, state=state)
        done = s._replace(head=head, owner=head.epoch)
        nw = w._replace(pc="get_manifest", seen=head, epoch=head.epoch)
        yield Step("take", f"{self.name(i, nw)} takes the lease: {head}", put_worker(done, i, nw))
        if s.lost_left:
            yield Step("ack lost", f"{self.name(i, w)} CAS epoch is applied ({head}), reply lost; resend -> 412",
                       put_worker(done, i, w._replace(pc="take412"), lost_left=s.lost_left - 1))

    def w_take412(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        if self.a.ack == "nonce" and s.head.write_nonce == w.nonce and s.head.epoch > w.seen.epoch:
            nw = w._replace(pc="get_manifest", seen=s.head, epoch=s.head.epoch)
            yield Step("take found mine", f"{self.name(i, nw)} reads HEAD: writeNonce is mine, lease held",
                       put_worker(s, i, nw))
        elif self.over(s.head):
            yield self.stop("job is over", f"{self.name(i, w)} reads {s.head}: nothing to take", s, i)
        else:
            nw = w._replace(pc="take", seen=s.head, nonce=self.nonce(i, s.head.version, take=True))
            yield Step("get head", f"{self.name(i, w)} reads {s.head}, will try again", put_worker(s, i, nw))

    def read(self, s: State, i: int, w: Worker, names: tuple, after: Worker, what: str) -> Step:
        if s.objects.issuperset(names):
            return Step("restore", f"{self.name(i, w)} reads {what}", put_worker(s, i, after))
        if w.epoch < s.owner:  # GET HEAD shows a newer epoch: not data loss
            return self.stop("fenced in restore", f"{self.name(i, w)} misses {what}: fenced, stops", s, i)
        text = f"{self.name(i, w)} misses {what} though it is the owner"
        return self.stop("restore failed", text, s, i, ("restore",))

    def w_get_manifest(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        yield self.read(s, i, w, (w.seen.manifest,), w._replace(pc="get_segments"), "the manifest")

    def w_get_segments(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        base, journal = w.seen.manifest.segments, w.seen.journal
        after = w._replace(pc="upload", base=base, step=len(base) + len(journal))
        yield self.read(s, i, w, base + journal, after, "the segments")
        if journal and s.forgets_left:
            after = w._replace(pc="upload", base=base, step=len(base), forgotten=frozenset(journal))
            yield self.read(s._replace(forgets_left=s.forgets_left - 1), i, w, base, after, "the segments, and begins without what was flushed")

    def w_upload(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        seg = Segment(w.seen.version, w.epoch, w.step)
        nw = w._replace(pc="put_manifest", segment=seg)
        yield Step("rehome" if w.segment else "upload", f"{self.name(i, w)} uploads {seg}",
                   put_worker(s, i, nw, objects=s.objects | {seg}))

    def folded(self, w: Worker) -> tuple[Segment, ...]:
        return tuple(seg for seg in w.seen.journal if seg not in w.forgotten or "forget-folds" in self.mutate)

    def w_put_manifest(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        yield from self.upload_ahead(s, i, w)
        if s.flushes_left and w.ahead is None and (not w.forgotten or "flush-before-forget" in self.mutate):
            yield from self.w_flush(s._replace(flushes_left=s.flushes_left - 1), i, w._replace(nonce=self.nonce(i, w.seen.version) + 30_000))
        version = w.seen.version + (self.variant == "seq")
        if w.manifest and "keep-manifest-name" in self.mutate:
            version = w.manifest.version
        man = Manifest(version, w.base + self.folded(w) + (w.segment,))
        nw = w._replace(pc="commit", manifest=man, nonce=self.nonce(i, w.seen.version))
        if self.variant == "seq":  # here the PUT is the commit itself
            yield from self.w_commit(s, i, nw)
        else:
            yield Step("put manifest", f"{self.name(i, w)} puts {man}",
                       put_worker(s, i, nw, objects=s.objects | {man}))

    def w_flush(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        """The step in hand is named by HEAD itself; the next manifest folds it."""
        me, refused = self.name(i, w), w._replace(pc="flush412")
        head = Head(w.seen.version + 1, w.epoch, w.nonce, w.seen.gc, w.seen.manifest, "running", w.seen.journal + (w.segment,))
        if s.head.version != w.seen.version:
            yield Step("flush refused", f"{me} tries to flush -> 412", put_worker(s, i, refused))
        else:
            after, fencing = s._replace(head=head), self.fencing(s, w.epoch)
            yield self.flushed("flush", f"{me} flushes {head}", after, i, w, head, fencing)
            if s.lost_left:
                yield Step("ack lost", f"{me} flushes {head}: applied, reply lost; resend -> 412",
                           put_worker(after, i, refused, lost_left=s.lost_left - 1), fencing)
        if s.late_left:
            late = tuple(sorted((*s.in_flight, InFlight(w.seen.version, head))))
            yield Step("timeout", f"{me} flushes {w.segment}, gives up waiting; it is still in flight",
                       put_worker(s, i, refused, late_left=s.late_left - 1, in_flight=late))

    def flushed(self, event: str, text: str, s: State, i: int, w: Worker, seen: Head, broken: tuple[str, ...] = ()) -> Step:
        if w.segment not in seen.journal:
            broken += ("acked",)
        return Step(event, text, put_worker(s, i, w._replace(pc="upload", seen=seen, step=w.step + 1, segment=None, nonce=0)), broken)

    def w_flush412(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        head, me = s.head, self.name(i, w)
        if head.write_nonce == w.nonce:
            yield self.flushed("flush found mine", f"{me} reads {head}: writeNonce is mine, it had succeeded", s, i, w, head)
        elif head.epoch != w.epoch:
            yield self.stop("fenced", f"{me} reads {head}: fenced, stops", s, i)
        elif head.version == w.seen.version:
            yield Step("resend", f"{me} reads HEAD: unchanged, will flush again", put_worker(s, i, w._replace(pc="flush")))
        else:
            nw = w._replace(pc="upload", seen=head, base=head.manifest.segments)
            yield Step("retry", f"{me} reads {head}: same epoch, will retry", put_worker(s, i, nw))

    def upload_ahead(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        if self.a.overlap and w.ahead is None and w.commits_left > 1:
            seg = Segment(w.seen.version, w.epoch, w.step + 1)
            nw = w._replace(ahead=seg)
            yield Step("upload ahead", f"{self.name(i, w)} uploads {seg} ahead, for the commit after this one",
                       put_worker(s, i, nw, objects=s.objects | {seg}))

    def w_commit(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        if w.pc == "commit" and self.variant != "seq":
            yield from self.upload_ahead(s, i, w)
        me = self.name(i, w)
        refused = w._replace(pc="commit412")
        if self.variant == "seq":
            what, head = f"{me} creates {w.manifest} if absent", Head(w.manifest.version, 0, 0, 0, w.manifest)
            won = all(o.version != w.manifest.version for o in s.objects if isinstance(o, Manifest))
            after = s._replace(objects=s.objects | {w.manifest})
        else:
            done = self.a.finish and len(w.manifest.segments) >= self.a.finish
            head = Head(w.seen.version + 1, w.epoch, w.nonce, w.seen.gc, w.manifest, "done" if done else "running")
            what, won = f"{me} commits {head}", s.head.version == w.seen.version
            after = s._replace(head=head)
        if not won:
            yield Step("commit refused", f"{me} tries to commit -> 412", put_worker(s, i, refused))
        else:
            fencing = self.fencing(s, w.epoch)
            yield self.acknowledged("commit", what, after, i, w, head, fencing)
            if s.lost_left:
                yield Step("ack lost", f"{what}: applied, reply lost; resend -> 412",
                           put_worker(after, i, refused, lost_left=s.lost_left - 1), fencing)
        if s.late_left and self.variant != "seq":
            late = InFlight(w.seen.version, head)
            yield Step("timeout", f"{me} sends the commit of {w.manifest}, gives up waiting; it is still in flight",
                       put_worker(s, i, refused, late_left=s.late_left - 1,
                                  in_flight=tuple(sorted((*s.in_flight, late)))))

    def acknowledged(self, event: str, text: str, s: State, i: int, w: Worker, seen: Head,
                     broken: tuple[str, ...] = ()) -> Step:
        """The worker now believes that w.manifest is committed; go on with the next step of work."""
        content = w.manifest.content()
        if self.head(s).manifest.content()[:len(content)] != content:
            broken += ("acked",)
        if w.commits_left == 1 or seen.state == "done":
            return self.stop(event, text, s, i, broken)
        stale = self.variant == "full" and w.ahead and w.ahead.version < seen.gc
        use_ahead = w.ahead and (not stale or "rehome-refused-only" in self.mutate)
        nw = w._replace(pc="put_manifest" if use_ahead else "upload", commits_left=w.commits_left - 1, seen=seen,
                        base=w.manifest.segments, step=w.step + 1, segment=w.ahead, manifest=None, nonce=0, ahead=None,
                        forgotten=frozenset())
        return Step(event, text, put_worker(s, i, nw), broken)

    def w_commit412(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        """A 412, or no answer at all: GET HEAD and find out what happened."""
        head, me = self.head(s), self.name(i, w)
        mine = w.manifest in s.objects if self.variant == "seq" else head.write_nonce == w.nonce
        if self.a.ack == "nonce" and mine:
            yield self.acknowledged("commit found mine", f"{me} reads {head}: writeNonce is mine, it had succeeded",
                                    s, i, w, head)
        elif self.variant == "seq" or head.epoch != w.epoch:
            yield self.stop("fenced", f"{me} reads {head}: fenced, stops", s, i)
        elif head.version == w.seen.version:  # only after a timeout
            fresh = "fresh-nonce-on-resend" in self.mutate
            nw = w._replace(pc="commit", nonce=w.nonce + 10_000 * fresh)
            yield Step("resend", f"{me} reads HEAD: unchanged, will send the commit again", put_worker(s, i, nw))
        else:
            base = w.base if self.a.retry == "absolute" else head.manifest.segments
            again = base == w.base and (self.variant == "fence" or "recheck-only" in self.mutate)
            nw = w._replace(pc="recheck" if again else "upload", seen=head, base=base)
            yield Step("retry", f"{me} reads {head}: same epoch, will retry", put_worker(s, i, nw))

    def w_recheck(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        there = s.objects.issuperset((w.segment, w.manifest))
        yield Step("recheck", f"{self.name(i, w)} finds " + ("its uploads still there" if there else "an upload gone"),
                   put_worker(s, i, w._replace(pc="commit" if there else "upload")))
