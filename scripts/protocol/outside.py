"""What comes from outside the job: cancel and erasure, each a take (CAS epoch+1), a second creation, and the sweep of a tombstone."""
from __future__ import annotations

from typing import Iterator

from search import Step
from state import ABSENT, NOTHING, TERMINAL, Head, Manifest, Outside, State, names, put_outside

RESULT = {"cancel": "cancelled", "erase": "erased"}


class OutsideSteps:
    def outside_steps(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        yield from getattr(self, "o_" + o.pc)(s, k, o)
        if s.crashes_left and o.pc not in ("idle", "stopped"):
            yield Step("outside crash", f"{self.actor(k, o)} crashes",
                       put_outside(s, k, Outside(o.kind, "stopped"), crashes_left=s.crashes_left - 1))

    def actor(self, k: int, o: Outside) -> str:
        return f"{o.kind.capitalize()}{k + 1}"

    def told(self, event: str, text: str, s: State, k: int, o: Outside) -> Step:
        """The caller is told that the job is over."""
        broken = () if s.head.state in TERMINAL else ("told",)
        return Step(event, text, put_outside(s, k, Outside(o.kind, "stopped")), broken)

    def over_for(self, o: Outside, head: Head) -> bool:
        """There is nothing to do: a terminal state is final, but erasure still follows it."""
        if o.kind == "cancel":
            return head.state in TERMINAL and "cancel-blind" not in self.mutate
        return head.state in ("erased", "absent")

    def look(self, s: State, k: int, o: Outside) -> Step:
        me = self.actor(k, o)
        if self.over_for(o, s.head):
            return self.told(f"{o.kind} finds it over", f"{me} reads {s.head}: it is over", s, k, o)
        first = o.kind == "erase" and "delete-first" in self.mutate
        no = o._replace(pc="list" if first else "cas", seen=s.head, nonce=500 + 100 * k + 1000 * (s.head.version + 1))
        return Step("get head", f"{me} reads {s.head}", put_outside(s, k, no))

    def o_idle(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        if o.kind == "trim":
            yield self.trim_look(s, k, o)
        elif o.kind != "create":
            yield self.look(s, k, o)
        elif s.head.state == "absent":
            empty = Manifest(0, ())
            yield Step("born again", f"{self.actor(k, o)} creates HEAD if absent: succeeds",
                       put_outside(s, k, o._replace(pc="stopped"), head=Head(0, 0, 0, 0, empty), objects=s.objects | {empty}))
        elif s.head.state == "erased":  # while the job lives, the same refusal shows nothing
            yield Step("create refused", f"{self.actor(k, o)} creates HEAD if absent -> 412, it is {s.head.state}",
                       put_outside(s, k, o._replace(pc="stopped")))

    def taken(self, o: Outside, head: Head) -> Head:
        """The HEAD that a cancel or an erasure writes."""
        keeps = f"{o.kind}-keeps-epoch" in self.mutate
        taken = head._replace(version=head.version + 1, epoch=head.epoch + (not keeps), write_nonce=o.nonce, state=RESULT[o.kind])
        if o.kind == "cancel":
            return taken
        if "no-tombstone" in self.mutate:
            return ABSENT
        return taken if "erase-keeps-manifest" in self.mutate else taken._replace(manifest=NOTHING, gc=taken.version)

    def o_cas(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        me = self.actor(k, o)
        if s.head.version != o.seen.version:
            if "cancel-412-done" in self.mutate:
                yield self.told("cancel refused", f"{me} CAS -> 412, says that it came too late", s, k, o)
            else:
                yield Step(f"{o.kind} refused", f"{me} CAS {RESULT[o.kind]} -> 412", put_outside(s, k, o._replace(pc="cas412")))
            return
        head = self.taken(o, s.head)
        after = s._replace(head=head, owner=max(s.owner, head.epoch))
        yield self.applied(o.kind, f"{me} takes the job: {head}", after, k, o)
        if s.lost_left:
            yield Step("ack lost", f"{me} takes the job: {head}, reply lost; resend -> 412",
                       put_outside(after, k, o._replace(pc="cas412"), lost_left=s.lost_left - 1))

    def o_cas412(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        if s.head.write_nonce == o.nonce:
            yield self.applied(f"{o.kind} found mine", f"{self.actor(k, o)} reads {s.head}: writeNonce is mine", s, k, o)
        else:
            yield self.look(s, k, o)

    def applied(self, event: str, text: str, s: State, k: int, o: Outside) -> Step:
        if o.kind == "cancel" or "delete-first" in self.mutate:
            return self.told(event, text, s, k, o)
        return Step(event, text, put_outside(s, k, o._replace(pc="list", seen=None)))

    def o_list(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        no = o._replace(pc="delete", names=s.objects)
        yield Step("erase list", f"{self.actor(k, o)} lists {names(s.objects)}", put_outside(s, k, no))

    def o_delete(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        """All at once: behind a tombstone nobody reads these names, so the order does not matter."""
        text, after = f"{self.actor(k, o)} deletes {names(o.names)}", s._replace(objects=s.objects - o.names)
        if "delete-first" in self.mutate:
            yield Step("erase delete", text, put_outside(after, k, o._replace(pc="cas", names=frozenset())))
        else:
            yield self.told("erase delete", text, after, k, o)

    def o_stopped(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        yield from ()

    def sweep(self, s: State) -> Iterator[Step]:
        """The reconciler walks tombstones: whatever lies under one, uploaded after the erasure or left by a crash, goes."""
        if s.head.state == "erased" and s.objects and "sweep-once" not in self.mutate:
            yield Step("sweep", f"the sweep deletes {names(s.objects)} of the erased job", s._replace(objects=frozenset()))
