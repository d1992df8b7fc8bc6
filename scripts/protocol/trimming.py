"""Letting go of the KV of a job that is over: a manifest that names none of it, HEAD swapped to it, and the garbage collector does the rest."""
from __future__ import annotations

from typing import Iterator

from search import Step
from state import TERMINAL, Manifest, Outside, State, put_outside


class TrimSteps:
    def trim_look(self, s: State, k: int, o: Outside) -> Step:
        me = self.actor(k, o)
        running = s.head.state not in TERMINAL and "trim-running" not in self.mutate
        if running or s.head.state in ("erased", "absent") or s.head.manifest.trimmed:
            return Step("trim has nothing to do", f"{me} reads {s.head}: stops", put_outside(s, k, Outside(o.kind, "stopped")))
        kept = o.manifest if "trim-keeps-name" in self.mutate else None
        pc = "trim" if kept else "trim_delete" if "trim-deletes-first" in self.mutate else "put_trimmed"
        return Step("get head", f"{me} reads {s.head}", put_outside(s, k, o._replace(pc=pc, seen=s.head, manifest=kept)))

    def o_trim_delete(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        gone = frozenset(o.seen.manifest.segments)
        yield Step("trim deletes", f"{self.actor(k, o)} deletes the segments", put_outside(s, k, o._replace(pc="put_trimmed"), objects=s.objects - gone))

    def o_put_trimmed(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        m = Manifest(o.seen.version, o.seen.manifest.segments, True)
        yield Step("put trimmed", f"{self.actor(k, o)} uploads {m}", put_outside(s, k, o._replace(pc="trim", manifest=m), objects=s.objects | {m}))

    def o_trim(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        me = self.actor(k, o)
        if s.head.version != o.seen.version:
            yield Step("trim refused", f"{me} CAS -> 412", put_outside(s, k, o._replace(pc="trim412")))
            return
        # Epoch, writeNonce and state as they are.
        nonce = o.nonce if "trim-clobbers-nonce" in self.mutate else s.head.write_nonce
        after = s._replace(head=s.head._replace(version=s.head.version + 1, manifest=o.manifest, write_nonce=nonce))
        yield Step("trim", f"{me} swaps {after.head}", put_outside(after, k, Outside(o.kind, "stopped")))
        if s.lost_left:
            yield Step("ack lost", f"{me} swaps {after.head}, reply lost; resend -> 412",
                       put_outside(after, k, o._replace(pc="trim412"), lost_left=s.lost_left - 1))

    def o_trim412(self, s: State, k: int, o: Outside) -> Iterator[Step]:
        if s.head.manifest == o.manifest:
            yield Step("trim found mine", f"{self.actor(k, o)} reads {s.head}: it had succeeded", put_outside(s, k, Outside(o.kind, "stopped")))
        else:
            yield self.trim_look(s, k, o)
