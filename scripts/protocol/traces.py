"""The named traces: for each rule the command that breaks it. `protocol traces` runs them and prints their shortest traces as JSON."""
from __future__ import annotations

import json
from typing import Callable

from search import VIOLATION, search, trace_json

QUEUE_ONLY = "deliver --no-reconciler --on-stale send --crash --mutate"
JOIN_ONLY = "join --no-reconciler --crash --mutate"

# name: (command, the rule that makes the scenario pass)
NAMED = {
    "S1": ("seq --check fencing", "A number says who was first, not who owns the job: a takeover writes its epoch into HEAD."),
    "S2": ("seq --check dangling", "GC fences the writer before it deletes."),
    "S3": ("seq --check acked", "One mutable HEAD; no numbers created if absent, for a deleted number can be created again."),
    "C1": ("cas --check fencing", "A takeover CASes epoch+1 into HEAD."),
    "C2": ("cas --check dangling", "GC fences the writer before it deletes."),
    "E1": ("cas+ep --check dangling", "GC fences the writer before it deletes."),
    "G1": ("fence --gc-view late --check dangling", "GC deletes only names whose <version> is older than its fence."),
    "G2": ("full --mutate recheck-only --gc-view late", "A writer refused by GC uploads again under the new version."),
    "N1": ("full --lost-acks --ack naive412", "On 412 compare writeNonce first."),
    "N2": ("full --lost-acks --mutate gc-clobbers-nonce", "GC preserves writeNonce when it bumps HEAD."),
    "N3": ("full --mutate owner-nonce", "A fresh writeNonce for every logical commit, and one for the take."),
    "N4": ("full --late-puts 1 --mutate fresh-nonce-on-resend", "Send again with the same writeNonce until HEAD has moved."),
    "F1": ("full --mutate fence-inclusive", "GC deletes names strictly older than its fence."),
    "F2": ("full --mutate keep-manifest-name", "Re-home the manifest too."),
    "F3": ("full --mutate recheck-only", "Re-home; finding the uploads still there proves nothing."),
    "F4": ("full --overlap --mutate rehome-refused-only", "Before every CAS re-home each new name with <version> < HEAD.gc."),
    "P1": ("full --gc-passive --overlap", "Uploads that outlive a commit need the GC's bump of HEAD."),
    "R1": ("full --give-ups --late-puts 1 --finish 1 --gcs 0 --mutate release-over", "A job is not given back if its own write had let it go."),
    "K1": ("full --flushes 2 --forgets --gcs 0 --mutate forget-folds", "What a taker has no use for is not folded."),
    "K2": ("full --flushes 2 --forgets --gcs 0 --crash --mutate flush-before-forget", "Who forgets commits without it before flushing."),
    "K3": ("full --flushes --commits 1 --mutate gc-skips-journal", "GC spares what HEAD's journal names."),
    "T1": ("full --cancels --gcs 0 --mutate cancel-keeps-epoch", "A cancel is a take: epoch+1, so that the owner is fenced."),
    "T2": ("full --finish 1 --cancels --gcs 0 --mutate cancel-blind", "A cancel leaves a job in a terminal state as it is."),
    "T3": ("full --cancels --gcs 0 --mutate take-terminal", "Nobody takes a job in a terminal state."),
    "T4": ("full --cancels --gcs 0 --mutate cancel-412-done", "A refused cancel reads HEAD, and tries again unless the job is over."),
    "X1": ("full --erases --gcs 0 --check erased --mutate erase-keeps-epoch", "An erasure is a take: epoch+1."),
    "X2": ("full --erases --gcs 0 --mutate erase-keeps-manifest", "A tombstone names nothing."),
    "X3": ("full --erases --gcs 0 --mutate delete-first", "The tombstone first, the objects after it."),
    "X4": ("full --erases --creates --gcs 0 --mutate no-tombstone", "HEAD is never deleted: the tombstone keeps the name taken."),
    "X5": ("full --erases --gcs 0 --workers 1 --commits 1 --mutate sweep-once", "Tombstones are swept again: an upload may come late."),
    "X6": ("full --erases --gcs 0 --crash --mutate sweep-once", "The sweep finishes what a crashed erasure began."),
    "V1": ("full --trims --finish 1 --commits 1 --mutate trim-deletes-first", "KV goes after HEAD names a manifest without it."),
    "V2": ("full --trims --commits 1 --mutate trim-running", "Only the KV of a job that is over goes."),
    "V3": ("full --trims --finish 1 --commits 1 --lost-acks --mutate trim-clobbers-nonce", "Who lets go of KV leaves writeNonce as it is."),
    "V4": ("full --trims --finish 1 --commits 1 --mutate trim-keeps-name", "A refused trim puts its manifest again, under the new version."),
    "B1": ("create --mutate spec-last", "The spec exists before HEAD."),
    "B2": ("create --check one-job --mutate head-before-idem", "idem exists before HEAD."),
    "B3": ("create --mutate idem-overwrite", "idem is created if absent."),
    "B4": ("create --mutate head-overwrite", "HEAD is created if absent."),
    "B5": ("create --mutate ack-early", "The caller is answered after HEAD exists."),
    "B6": ("create --bodies 2 --mutate no-body-check", "Another body under the same key is refused."),
    "B7": ("create --mutate compare-specs", "Compare the digest of the request as written, not of the spec: that holds the id drawn."),
    "B8": ("create --crash --mutate marker-last", "The marker exists before HEAD."),
    "B9": ("create --crash --mutate marker-dropped", "A marker without a HEAD is finished by the reconciler, never deleted."),
    "B10": ("create --erases --mutate erase-head", "Erasure leaves a tombstone."),
    "B11": ("create --erases --mutate erase-idem", "Erasure leaves idem until it expires."),
    "B12": ("create --check orphan --crash", "idem before the spec: else that of a caller who died between them, with its prompt, stays where no erasure looks."),
    "B13": ("create --mutate loser-keeps-spec", "Who loses the race for the key deletes the spec that it has put."),
    "M1": ("create --clients 1 --imports --mutate import-marker-first", "An import puts its marker after HEAD."),
    "M2": ("create --clients 1 --imports --mutate import-head-first", "What HEAD names exists before it."),
    "M3": ("create --clients 1 --imports --mutate import-overwrites", "An import creates HEAD if absent."),
    "M4": ("create --clients 0 --imports --crash --mutate import-acks-early", "An import is answered after its marker exists."),
    "M5": ("create --clients 0 --imports --crash --retries --mutate import-refused-leaves", "Whoever is refused sees to the marker of the job that is there."),
    "D1": (f"{QUEUE_ONLY} ack-before-send", "Send the continuation, then ack."),
    "D2": (f"{QUEUE_ONLY} send-before-commit", "Commit parked, then send; a message newer than HEAD is not stale."),
    "D3": (f"{QUEUE_ONLY} ack-on-receive", "The message is acked at the end of the slice."),
    "D4": (f"{QUEUE_ONLY} ack-running", "A message of the running slice is let go, not acked."),
    "D5": (f"{QUEUE_ONLY} fenced-acks", "A fenced worker acks nothing."),
    "D6": ("deliver --no-reconciler --crash", "A stale message while HEAD is parked: send HEAD's slice before the ack, or rely on the reconciler."),
    "D7": ("deliver --no-reconciler --lost-messages", "The reconciler sends again for every marker whose HEAD does not move."),
    "D8": ("deliver --slices 1 --lost-messages --crash --mutate marker-first", "The marker goes after the commit that ends the job."),
    "D9": ("deliver --mutate bill-outside", "Bills are part of the commit."),
    "D10": ("deliver --strikes 2 --mutate no-strikes", "Takes without a token are counted in HEAD."),
    "D11": ("deliver --mutate blind-commit", "Every write of HEAD is conditional."),
    "J1": ("join --shards 3 --lost-acks --no-reconciler --mutate counter", "The parent has a bit for each child."),
    "J2": ("join --no-reconciler --mutate blind-join", "The parent is written by CAS."),
    "J3": (f"{JOIN_ONLY} ack-before-join", "Ack after the join."),
    "J4": (f"{JOIN_ONLY} redelivery-acks", "A redelivered message of a child that is over repeats the join."),
    "J5": ("join --mutate join-before-done", "Join after the commit that ends the child."),
    "J6": ("join --mutate two-writes", "The bit and the ballots are one write."),
    "J7": ("join --check counted --mutate join-from-memory", "Join what the child's HEAD holds; a fenced worker joins nothing."),
    "J8": ("join --cancels --mutate join-revives", "A join leaves a parent in a terminal state as it is."),
    "J9": ("join --shards 1 --takes 1 --crash --cancels --mutate cancel-parent-only", "The children of a cancelled parent are cancelled."),
    "J10": ("join --no-reconciler --shards 1 --takes 1 --crash 2 --cancels", "The reconciler cancels the children that a crashed cancel left."),
    "J11": ("join --poison --crash --no-reconciler", "The reconciler cancels the children that a poisoned child's job leaves."),
}


def print_traces(parse: Callable) -> int:
    """One object, a line for each step."""
    said, status = [], 0
    for name, (command, rule) in NAMED.items():
        model, a = parse(command.split())
        found = search(model, a.max_states, a.max_seconds)
        if found.status != VIOLATION:
            status = 1
        trace = trace_json(model, found)
        steps = ",\n".join("      " + json.dumps(step, ensure_ascii=False) for step in trace["steps"])
        head = "".join(f'    "{key}": {json.dumps(value, ensure_ascii=False)},\n'
                       for key, value in (("command", command), ("rule", rule), ("violates", trace["violates"])))
        said.append(f'  "{name}": {{\n{head}    "steps": [\n{steps}\n    ]\n  }}')
    print("{\n" + ",\n".join(said) + "\n}")
    return status
