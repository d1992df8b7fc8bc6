/** A server-sent event stream as a client reads it. */
export interface SseEvent {
  readonly id: string | null;
  readonly event: string;
  readonly data: unknown;
}

/** Ends when the stream does, or after the first event for which `until` holds: the connection is then closed, as by a client that leaves. */
export async function readSse(response: Response, until: (event: SseEvent) => boolean = () => false): Promise<SseEvent[]> {
  const events: SseEvent[] = [];
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const next = await reader?.read();
    if (next === undefined || next.done) return events;
    text += next.value;
    const blocks = text.split('\n\n');
    text = blocks.pop() ?? '';
    for (const block of blocks) {
      const event = eventOf(block);
      if (event === null) continue;
      events.push(event);
      if (!until(event)) continue;
      await reader?.cancel();
      return events;
    }
  }
}

/** null: a comment. */
function eventOf(block: string): SseEvent | null {
  const field = (name: string) => block.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? null;
  const data = field('data');
  return data === null ? null : { id: field('id'), event: field('event') ?? 'message', data: data === '[DONE]' ? data : JSON.parse(data) };
}
