"""What a garbage collector does: set its fence, list, delete what is unreferenced and older than the fence."""
from __future__ import annotations

from typing import Iterator

from search import Step
from state import Gc, Head, Segment, State, names, put_gc, reachable


class CollectorSteps:
    def next_round(self, g: Gc) -> Gc:
        return Gc("idle" if g.rounds_left > 1 else "stopped", g.rounds_left - 1)

    def g_idle(self, s: State, j: int, g: Gc) -> Iterator[Step]:
        if self.head(s).state in ("erased", "absent"):  # what is left of the job is swept without a fence
            yield Step("gc skips", f"GC{j + 1} reads {s.head}: leaves it to the sweep", put_gc(s, j, Gc("stopped", 0)))
        elif self.gc_writes_head:
            ng = g._replace(pc="cas", seen=s.head)
            if self.a.gc_passive:
                ng = ng._replace(pc="list", fence=s.head.version)
            yield Step("get head", f"GC{j + 1} reads {s.head}", put_gc(s, j, ng))
        else:
            yield from self.g_list(s, j, g)

    def g_cas(self, s: State, j: int, g: Gc) -> Iterator[Step]:
        retry = g._replace(pc="idle", seen=None)  # bumping twice is harmless: the later fence counts
        if s.head.version != g.seen.version:
            yield Step("gc refused", f"GC{j + 1} CAS gc -> 412", put_gc(s, j, retry))
            return
        version = s.head.version + 1
        nonce = 900 + j if "gc-clobbers-nonce" in self.mutate else s.head.write_nonce
        head = s.head._replace(version=version, gc=version, write_nonce=nonce)
        yield Step("gc fence", f"GC{j + 1} sets the fence: {head}",
                   put_gc(s, j, g._replace(pc="list", seen=head, fence=version), head=head))
        if s.lost_left:
            yield Step("ack lost", f"GC{j + 1} sets the fence: {head}, reply lost; resend -> 412",
                       put_gc(s, j, retry, head=head, lost_left=s.lost_left - 1))

    def g_list(self, s: State, j: int, g: Gc) -> Iterator[Step]:
        ng = g._replace(pc="view", names=s.objects)
        if self.gc_writes_head and self.a.gc_view == "fence":
            yield self.choose(s, j, ng, g.seen, f"GC{j + 1} lists")
        else:
            yield Step("gc list", f"GC{j + 1} lists {names(s.objects)}", put_gc(s, j, ng))

    def g_view(self, s: State, j: int, g: Gc) -> Iterator[Step]:
        yield self.choose(s, j, g, self.head(s), f"GC{j + 1} reads {self.head(s)}")

    def choose(self, s: State, j: int, g: Gc, head: Head, text: str) -> Step:
        doomed = g.names - reachable(head._replace(journal=()) if "gc-skips-journal" in self.mutate else head)
        if self.variant == "full":
            limit = g.fence + ("fence-inclusive" in self.mutate)
            doomed = frozenset(o for o in doomed if o.version < limit)
        elif self.variant == "seq":  # a manifest newer than the one read must not be touched
            doomed = frozenset(o for o in doomed if isinstance(o, Segment) or o.version < head.version)
        ng = g._replace(pc="delete", seen=None, names=doomed) if doomed else self.next_round(g)
        return Step("gc choose", f"{text}; will delete {names(doomed)}", put_gc(s, j, ng))

    def g_delete(self, s: State, j: int, g: Gc) -> Iterator[Step]:
        for name in g.names:
            rest = g.names - {name}
            ng = g._replace(names=rest) if rest else self.next_round(g)
            broken = ("gc",) if name in reachable(self.head(s)) and name in s.objects else ()
            yield Step("gc delete", f"GC{j + 1} deletes {name}", put_gc(s, j, ng, objects=s.objects - {name}), broken)
