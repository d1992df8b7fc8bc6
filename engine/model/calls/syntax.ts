/** The ways in which models write calls of functions: what every one of them says of itself, and how calls are known to everybody else. */

/** A call as the model wrote it: `arguments` is what should be a JSON object, unparsed. */
export interface Call {
  readonly name: string;
  readonly arguments: string;
}

/** A function as templates and OpenAI's API have it. */
export interface Tool {
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    readonly description?: string | undefined;
    /** A JSON schema of an object. */
    readonly parameters?: Readonly<Record<string, unknown>> | undefined;
    /** Arguments are to satisfy the schema, not only to be asked for: for the grammar, never shown to a template. */
    readonly strict?: boolean | undefined;
  };
}

/**
 * What a reader says of a character. `end`: the call ends with it; `past`: it ended before it; `garbage`: this is no call, which is said only
 * while the call has no name yet.
 */
export type Step = 'more' | 'end' | 'past' | 'garbage';

/** Reads one call, character by character. */
export interface CallReader {
  push(char: string): Step;
  /** null until it is certain that this is a call: its name is one that was offered, and its arguments have begun. Never changes then. */
  readonly name: string | null;
  /** The arguments since the last time. */
  take(): string;
}

export interface CallSyntax {
  readonly name: 'hermes' | 'llama' | 'mistral' | 'mistral_args' | 'deepseek';
  /** Markup: in the text of tokens whether or not the vocabulary calls it special. */
  readonly markers: readonly string[];
  /** After any of these comes a call. */
  readonly opens: readonly string[];
  /** What else stands around calls and is no text. */
  readonly silent: readonly string[];
  /** Whether a call needs no opening: where the text begins, and after another call. */
  readonly bare: { readonly first: boolean; readonly next: boolean };
  reader(isOffered: (name: string) => boolean): CallReader;
  /** How the model is trained to write them. */
  readonly form: CallForm;
}

/** `start call (separator call)* end`, where a call is its arguments as JSON between two texts. */
export interface CallForm {
  readonly start: string;
  readonly separator: string;
  readonly end: string;
  /** @example (name) => [`<tool_call>\n{"name": "${name}", "arguments": `, '}\n</tool_call>'] */
  call(name: string): readonly [before: string, after: string];
}

/** Calls as the model would have written them, for a template that has no words for them. Arguments are JSON. */
export function writeCalls({ form: { start, separator, end, call } }: CallSyntax, calls: readonly Call[]): string {
  return `${start}${calls.map(({ name, arguments: json }) => call(name).join(json)).join(separator)}${end}`;
}
