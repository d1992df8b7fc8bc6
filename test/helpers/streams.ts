/** Many server-sent event streams at once, each looked at as it comes and kept by nobody. */
import http from 'node:http';
import { StringDecoder } from 'node:string_decoder';

export interface StreamRequest {
  readonly url: string;
  /** Absent: GET. */
  readonly body?: unknown;
}

/** One client of its own connection. Knows how many events came, whether their numbers had no gap, and what came last. */
export class CountedStream implements Disposable {
  /** Of the numbered ones, or of all that have data. */
  events = 0;
  /** Numbers came from 0 on, each once. true of streams without numbers. */
  inOrder = true;
  /** The job, by the answer's header; '': it did not say. */
  job = '';
  last = '';
  readonly begun: Promise<void>;
  readonly ended: Promise<void>;
  readonly #request: http.ClientRequest;

  constructor({ url, body }: StreamRequest) {
    const decoder = new StringDecoder('utf8');
    let text = '';
    let begin = (): void => undefined;
    this.begun = new Promise((resolve) => (begin = resolve));
    this.#request = http.request(url, { method: body === undefined ? 'GET' : 'POST', agent: false, headers: { 'content-type': 'application/json' } });
    this.ended = new Promise((resolve, reject) => {
      this.#request.on('error', reject);
      this.#request.on('response', (response) => {
        this.job = String(response.headers['x-ruminate-job'] ?? '');
        begin();
        if (response.statusCode !== 200) reject(new Error(`${url}: ${response.statusCode}`));
        response.on('data', (chunk: Buffer) => {
          text += decoder.write(chunk);
          const blocks = text.split('\n\n');
          text = blocks.pop() ?? '';
          for (const block of blocks) this.#take(block);
        });
        response.on('end', resolve);
        response.on('error', reject);
      });
    });
    // Whoever closes it does not wait for it.
    this.ended.catch(begin);
    this.#request.end(body === undefined ? undefined : JSON.stringify(body));
  }

  #take(block: string): void {
    const data = /^data: (.*)$/m.exec(block)?.[1];
    if (data === undefined) return;
    const id = /^id: (\d+)$/m.exec(block)?.[1];
    const isEnd = block.includes('event: end\n');
    if (id !== undefined && !isEnd && Number(id) !== this.events) this.inOrder = false;
    if (id !== undefined || !block.includes('event: ')) this.events += isEnd ? 0 : 1;
    this.last = block;
  }

  [Symbol.dispose](): void {
    this.#request.destroy();
  }
}

/** Begun a few at a time: a thousand connections in one moment would be refused. */
export async function openStreams(requests: readonly StreamRequest[], atOnce = 25): Promise<readonly CountedStream[]> {
  const streams: CountedStream[] = [];
  for (let from = 0; from < requests.length; from += atOnce) {
    const opened = requests.slice(from, from + atOnce).map((request) => new CountedStream(request));
    streams.push(...opened);
    await Promise.all(opened.map(({ begun }) => begun));
  }
  return streams;
}
