/** Waiting for a stream that said it is full. */

/** What tar-stream's streams and Node's have in common. */
interface Emitter {
  on(event: 'drain' | 'close', listener: () => void): unknown;
  off(event: 'drain' | 'close', listener: () => void): unknown;
}

/** Until it takes more, or takes nothing any more. @example if (!stream.write(chunk)) await room(stream); */
export async function room(stream: Emitter): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = () => {
      stream.off('drain', done);
      stream.off('close', done);
      resolve();
    };
    stream.on('drain', done);
    stream.on('close', done);
  });
}
