/** Bytes that are read as the client reads them: a piece is asked for when it has the one before. */

/** @param onEnd called once; null: all was read, or the client has gone. */
export function byteStream(content: AsyncIterable<Uint8Array>, onEnd: (error: unknown) => void): ReadableStream<Uint8Array> {
  const chunks = content[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await chunks.next();
        if (next.done !== true) return controller.enqueue(next.value);
        onEnd(null);
        controller.close();
      } catch (error) {
        onEnd(error);
        // The client sees that the answer breaks off.
        controller.error(error);
      }
    },
    cancel() {
      onEnd(null);
      void chunks.return?.().catch(() => undefined);
    },
  });
}
