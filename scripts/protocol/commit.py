"""The commit, takeover and GC protocol of one job, with cancel, erasure and a second creation from outside.

It explores every interleaving of N workers, K garbage collectors and the actors from outside on one job.

  worker   take lease (GET HEAD, CAS HEAD epoch+1) -> GET manifest -> GET segments
           -> loop { PUT segment -> PUT manifest -> CAS HEAD }
           in between, before the first PUT: CAS HEAD with nothing changed (a sign of life), or CAS HEAD parked and start over
           instead of PUT manifest: CAS HEAD with the segment in HEAD's journal (a flush), which the next manifest folds, or which
           whoever takes the job next has no use for and forgets
           after a CAS without an answer: CAS HEAD parked, whatever became of it, and start over
  GC       GET HEAD -> CAS HEAD gc -> LIST -> DELETE unreferenced names, one by one, in any order
  cancel   GET HEAD -> CAS HEAD epoch+1, cancelled                (expire and poison are the same step)
  erase    GET HEAD -> CAS HEAD epoch+1, erased, naming nothing -> LIST -> DELETE every name; the sweep repeats it
  trim     GET HEAD, over -> PUT a manifest that names no segment -> CAS HEAD to it, all else as it was; what follows is a GC

Each arrow is one atomic step. A step of work (`step` 0, 1, ...) is one delta; a manifest lists the
segments of all steps so far. `version` is bumped by every write of HEAD and stands for the ETag.

Variants:
  seq      no HEAD; manifest number N+1 is created if absent; the highest number is current
  cas      CAS on HEAD, but a takeover does not write HEAD (the epoch lives in an outside lease)
  cas+ep   a takeover CASes epoch+1 into HEAD; GC writes nothing
  fence    and GC CASes HEAD first; a refused writer re-checks that its uploads exist, then retries
  full     and GC deletes only names whose <version> is older than its fence, and a refused writer
           uploads again under the new version ("re-homes")

Faults are switches with a budget: lost acknowledgements (applied, reply lost, the resend gets 412), late
PUTs (timed out, applied later or never), crashes (memory gone, uploads stay), GC crashes. --overlap
lets a worker upload ahead of its commits, --mutate breaks one rule of `full` to show what it is for.
The one reduction: garbage whose name no worker holds is forgotten (tidy); --keep-garbage turns it off.

Not modelled: liveness, several chains, forks, clocks, store bugs, paged LIST. The job's HEAD exists from the
start and names an empty manifest.
"""
from __future__ import annotations

import argparse
from typing import Iterator

from collector import CollectorSteps
from outside import OutsideSteps
from search import Step, add_arguments, by
from state import TERMINAL, Gc, Head, Manifest, Outside, Segment, State, Worker, put_gc, put_worker, reachable
from touch import TouchSteps
from trimming import TrimSteps
from worker import WorkerSteps

VARIANTS = ("seq", "cas", "cas+ep", "fence", "full")
INVARIANTS = {
    "dangling": "HEAD names a manifest or a segment that does not exist",
    "fencing": "a commit by an older epoch succeeded after a takeover",
    "once": "the committed manifest applies a step twice, or skips one",
    "progress": "committed work was rewritten or went backwards",
    "acked": "a worker took its commit for a success, but HEAD does not contain it",
    "gc": "GC deleted an object reachable from HEAD",
    "restore": "the current owner could not read what HEAD names",
    "final": "a job in a terminal state changed",
    "told": "somebody was told that the job is over, and it was not",
    "erased": "an erased job names objects, or its name was born again",
    "collected": "objects of an erased job stay for ever",
}
MUTATIONS = {
    "gc-clobbers-nonce": "GC overwrites writeNonce when it bumps HEAD",
    "owner-nonce": "one writeNonce per owner instead of one per commit",
    "fresh-nonce-on-resend": "a commit that timed out is sent again under another writeNonce",
    "fence-inclusive": "GC deletes names with <version> <= fence instead of < fence",
    "recheck-only": "a refused writer re-checks that its uploads exist instead of re-homing them",
    "keep-manifest-name": "re-homing renews the segment but leaves <version> in the manifest's name",
    "rehome-refused-only": "uploads made ahead for a later commit are not re-homed",
    "forget-folds": "a commit folds what its owner had no use for",
    "flush-before-forget": "who has no use for HEAD's journal flushes before it has committed without it",
    "gc-skips-journal": "GC looks at the manifest alone",
    "release-over": "a worker gives back a job that its own write had ended, without its knowing",
    "beat-nonce": "a commit goes under the writeNonce of a sign of life sent before it",
    "beat-keeps-names": "a worker that learns of a fence by its own sign of life does not re-home what it has uploaded",
    "release-fenced": "a worker that gives a job back does so whoever owns it by now",
    "take-terminal": "a worker takes a job without looking whether it is over",
    "cancel-blind": "a cancel does not look whether the job is over",
    "cancel-keeps-epoch": "a cancel leaves the epoch as it is",
    "cancel-412-done": "a refused cancel says that it came too late, without reading HEAD",
    "erase-keeps-epoch": "an erasure leaves the epoch as it is",
    "erase-keeps-manifest": "the tombstone goes on naming the manifest",
    "delete-first": "an erasure deletes the objects and writes the tombstone afterwards",
    "no-tombstone": "an erasure deletes HEAD",
    "sweep-once": "nobody sweeps after the erasure itself",
    "trim-deletes-first": "a trim deletes the segments before HEAD names the manifest without them",
    "trim-running": "a trim does not look whether the job is over",
    "trim-clobbers-nonce": "a trim writes a writeNonce of its own",
    "trim-keeps-name": "a trim that was refused names the manifest that it has put before",
}


class CommitModel(WorkerSteps, TouchSteps, CollectorSteps, OutsideSteps, TrimSteps):
    INVARIANTS = INVARIANTS

    def __init__(self, a: argparse.Namespace) -> None:
        self.a = a
        self.variant: str = a.variant
        self.epoch_in_head = self.variant in ("cas+ep", "fence", "full")
        self.gc_writes_head = self.variant in ("fence", "full")
        self.mutate: frozenset[str] = frozenset(a.mutate)
        self.check: frozenset[str] = frozenset(a.check or INVARIANTS)

    @staticmethod
    def arguments(p: argparse.ArgumentParser) -> None:
        p.add_argument("variant", choices=VARIANTS)
        p.add_argument("--workers", type=int, default=2)
        p.add_argument("--commits", type=int, default=2, help="commits per worker, at most")
        p.add_argument("--gcs", type=int, default=1, help="garbage collectors running at once")
        p.add_argument("--gc-rounds", type=int, default=1, help="rounds per garbage collector")
        p.add_argument("--gc-crash", action="store_true", help="a GC may die after its fence, at any point")
        p.add_argument("--gc-passive", action="store_true", help="full: GC writes nothing, fences at the version it read")
        p.add_argument("--gc-view", choices=("fence", "late"), default="fence",
                       help="fence, full: references as of the fence, or of a GET HEAD after LIST")
        p.add_argument("--lost-acks", type=int, nargs="?", const=1, default=0, help="acknowledgements lost, at most")
        p.add_argument("--late-puts", type=int, default=0, help="commits that time out and may be applied later")
        p.add_argument("--crash", type=int, nargs="?", const=1, default=0, help="crashes of workers and outside actors, at most")
        p.add_argument("--overlap", action="store_true", help="a worker may upload the next segment before this commit")
        p.add_argument("--ack", choices=("nonce", "naive412"), default="nonce",
                       help="on 412 with the same epoch: compare writeNonce first, or just retry")
        p.add_argument("--retry", choices=("rebase", "absolute"), default="rebase",
                       help="a retry extends the manifest HEAD names now, or the one restored from")
        p.add_argument("--beats", type=int, nargs="?", const=1, default=0, help="full: signs of life of a worker that has no swap of its own on its way, at most")
        p.add_argument("--releases", type=int, nargs="?", const=1, default=0, help="full: workers that give the job back before they upload, at most")
        p.add_argument("--give-ups", type=int, nargs="?", const=1, default=0, help="full: workers that give the job back after a CAS without an answer, at most")
        p.add_argument("--flushes", type=int, nargs="?", const=1, default=0, help="full: steps that are flushed into HEAD's journal, at most")
        p.add_argument("--forgets", type=int, nargs="?", const=1, default=0, help="full: takers that have no use for HEAD's journal, at most")
        p.add_argument("--finish", type=int, default=0, metavar="STEPS", help="the commit of that many steps ends the job: done")
        p.add_argument("--cancels", type=int, nargs="?", const=1, default=0, help="cas+ep, fence, full: who may cancel the job")
        p.add_argument("--erases", type=int, nargs="?", const=1, default=0, help="cas+ep, fence, full: who may erase it")
        p.add_argument("--creates", type=int, nargs="?", const=1, default=0, help="who may create the same job once more")
        p.add_argument("--trims", type=int, nargs="?", const=1, default=0, help="full: who may let go of the KV of a job that is over")
        p.add_argument("--keep-garbage", action="store_true", help="no reduction: keep objects nobody can name any more")
        add_arguments(p, INVARIANTS, MUTATIONS)

    @staticmethod
    def refuse(p: argparse.ArgumentParser, a: argparse.Namespace) -> None:
        if (a.cancels or a.erases or a.creates) and a.variant in ("seq", "cas"):
            p.error(f"--cancels, --erases and --creates need the epoch in HEAD, which {a.variant} has not")
        if (a.beats or a.releases or a.give_ups or a.flushes or a.forgets or a.trims) and a.variant != "full":
            p.error(f"--beats, --releases, --give-ups, --flushes, --forgets and --trims are modelled for full only, not for {a.variant}")

    def bounds(self) -> str:
        return f"{self.a.workers}w×{self.a.commits}c×{self.a.gcs}g"

    def initial(self) -> State:
        empty, a = Manifest(0, ()), self.a
        head = None if self.variant == "seq" else Head(0, 0, 0, 0, empty)
        outside = [Outside(kind, "idle") for kind, n in (("cancel", a.cancels), ("erase", a.erases), ("create", a.creates), ("trim", a.trims))
                   for _ in range(n)]
        return State(head, frozenset((empty,)), 0, (Worker("idle", a.commits),) * a.workers,
                     (Gc("idle", a.gc_rounds),) * a.gcs, a.lost_acks, a.late_puts, a.crash, (), tuple(outside), a.beats, a.releases,
                     a.give_ups, a.flushes, a.forgets)

    def head(self, s: State) -> Head:
        if s.head is not None:
            return s.head
        latest = max((o for o in s.objects if isinstance(o, Manifest)), key=lambda m: m.version)
        return Head(latest.version, 0, 0, 0, latest)

    def steps(self, s: State) -> Iterator[Step]:
        for i, w in enumerate(s.workers):
            if w.pc == "stopped" or (w.pc == "idle" and i and s.workers[i - 1] == s.workers[i]):
                continue  # identical idle workers: letting the first one start is enough
            yield from by(f"W{i + 1}", self.worker_steps(s, i, w))
        for j, g in enumerate(s.gcs):
            if g.pc == "stopped" or (g.pc == "idle" and j and s.gcs[j - 1] == s.gcs[j]):
                continue
            yield from by(f"GC{j + 1}", self.gc_steps(s, j, g))
        for k, o in enumerate(s.outside):
            yield from by(self.actor(k, o), self.outside_steps(s, k, o))
        if self.a.erases:
            yield from by("Sweep", self.sweep(s))
        yield from by("Store", self.late_puts(s))

    def worker_steps(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        yield from getattr(self, "w_" + w.pc)(s, i, w)
        yield from self.touches(s, i, w)
        if s.crashes_left and w.pc != "idle":
            again = Worker("idle", w.commits_left)
            yield Step("worker crash", f"{self.name(i, w)} crashes, forgets everything, restarts",
                       put_worker(s, i, again, crashes_left=s.crashes_left - 1))

    def gc_steps(self, s: State, j: int, g: Gc) -> Iterator[Step]:
        yield from getattr(self, "g_" + g.pc)(s, j, g)
        if self.a.gc_crash and g.pc not in ("idle", "cas"):
            yield Step("gc crash", f"GC{j + 1} crashes", put_gc(s, j, self.next_round(g)))

    def late_puts(self, s: State) -> Iterator[Step]:
        for k, put in enumerate(s.in_flight):
            rest = s.in_flight[:k] + s.in_flight[k + 1:]
            if s.head.version == put.if_match:
                yield Step("late put applied", f"the store applies a late PUT: {put.head}",
                           s._replace(head=put.head, in_flight=rest), self.fencing(s, put.head.epoch))
            else:
                yield Step("late put refused", "the store refuses a late PUT", s._replace(in_flight=rest))

    def tidy(self, s: State) -> State:
        """Drop garbage whose name nobody holds: it can never be committed, so deleting it has no effect.

        Behind a tombstone what stays is the question, so all is kept; there a GC does nothing that the sweep does not.
        """
        if self.a.keep_garbage:
            return s
        if s.head is not None and s.head.state == "erased":
            return s if reachable(s.head) else s._replace(gcs=(Gc("stopped", 0),) * len(s.gcs))
        held = set(reachable(self.head(s)))
        for put in s.in_flight:
            held |= reachable(put.head)
        held.update(o.manifest for o in s.outside)
        for w in s.workers:
            held.update((w.segment, w.ahead, w.manifest, *w.base, *(w.seen.journal if w.seen else ())))
            if w.pc in ("take", "get_manifest", "get_segments"):
                held |= reachable(w.seen)
        if self.variant == "seq":  # a number that exists cannot be created again
            held.update(o for o in s.objects if isinstance(o, Manifest))
        if not s.objects <= held:
            s = s._replace(objects=s.objects & held)
        for j, g in enumerate(s.gcs):
            if not g.names <= s.objects:
                names = g.names & s.objects
                s = put_gc(s, j, g._replace(names=names) if names or g.pc != "delete" else self.next_round(g))
        return s

    def broken(self, before: State, step: Step) -> tuple[str, ...]:
        was, now = self.head(before), self.head(step.state)
        old, new = was.manifest, now.manifest
        found = list(step.broken)
        if not step.state.objects.issuperset(reachable(now)):
            found.append("dangling")
        if new is not old and new != old and now.state not in ("erased", "absent"):
            if [seg.step for seg in new.segments] != list(range(len(new.segments))):
                found.append("once")
            if new.content()[:len(old.segments)] != old.content():
                found.append("progress")
        # What was flushed stays until a manifest has it; only a later owner than its own may forget it.
        gone = [seg for seg in was.journal if seg not in now.journal and seg.content() not in new.content()]
        if now.state not in ("erased", "absent") and any(seg.epoch >= now.epoch for seg in gone):
            found.append("progress")
        if was.state in TERMINAL:
            found += self.after_the_end(was, now)
        elif now.state == "erased" and reachable(now):
            found.append("erased")
        return tuple(found)

    def after_the_end(self, was: Head, now: Head) -> list[str]:
        """A terminal state is final; only an erasure may follow, and nothing follows that."""
        if was.state in ("erased", "absent"):
            return ["erased"] if now.state != was.state or reachable(now) else []
        if now.state in ("erased", "absent"):
            return ["erased"] if reachable(now) else []
        # Who lets go of its KV leaves what it has come to.
        same = now.manifest == was.manifest or (now.manifest.trimmed and now.manifest.segments == was.manifest.segments)
        return [] if now.state == was.state and same else ["final"]

    def broken_at_rest(self, s: State) -> tuple[str, ...]:
        return ("collected",) if self.head(s).state == "erased" and s.objects else ()

    def changes(self, before: State, step: Step) -> dict[str, object]:
        """The names that came and went, and HEAD after a write of it."""
        gone, come = before.objects - step.state.objects, step.state.objects - before.objects
        was, now = self.head(before), self.head(step.state)
        said: dict[str, object] = {"created": sorted(map(str, come))} if come else {}
        if gone:
            said["deleted"] = sorted(map(str, gone))
        if now != was:
            said["head"] = {"version": now.version, "epoch": now.epoch, "gc": now.gc, "writeNonce": now.write_nonce,
                            "state": now.state, "steps": [seg.step for seg in now.manifest.segments]}
            if now.journal:
                said["head"]["flushed"] = [seg.step for seg in now.journal]
        return said
