/** Bytes that are read as the client reads them: a piece is asked for when it has the one before. */

/** @param onEnd called once; null: all was read, or the client has gone. */
export function byteStream(content: AsyncIterable<Uint8Array>, onEnd: (error: unknown) => void): ReadableStream<Uint8Array> {
  const chunks = content[Symbol.asyncIterator]();
  let over = false;
  const end = (error: unknown) => {
    if (over) return;
    over = true;
    onEnd(error);
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await chunks.next();
        // The client has gone meanwhile.
        if (over) return;
        if (next.done !== true) return controller.enqueue(next.value);
        end(null);
        controller.close();
      } catch (error) {
        // What was being read was told to stop.
        if (over) return;
        end(error);
        // The client sees that the answer breaks off.
        controller.error(error);
      }
    },
    cancel() {
      end(null);
      void chunks.return?.().catch(() => undefined);
    },
  });
}
