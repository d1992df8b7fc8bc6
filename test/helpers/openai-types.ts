/** What OpenAI's client says that its API takes and gives: the fields of an interface in its declarations. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const RESOURCES = fileURLToPath(new URL('../../node_modules/openai/resources', import.meta.url));

export interface Field {
  readonly name: string;
  readonly optional: boolean;
}

/** @param file under the client's resources, without its ending. Inherited fields are not among them. */
export function fieldsOf(file: string, named: string): readonly Field[] {
  const text = readFileSync(`${RESOURCES}/${file}.d.ts`, 'utf8').replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/\/\/.*$/gm, '');
  const head = new RegExp(`\\binterface ${named}\\b[^{]*{`).exec(text);
  if (head === null) throw new Error(`${file} declares no ${named}`);
  const fields: Field[] = [];
  let line = '';
  let depth = 1;
  for (let at = head.index + head[0].length; depth > 0; at++) {
    const char = text[at] ?? '}';
    if ('{[(<'.includes(char) && depth >= 1) depth += 1;
    else if ('}])>'.includes(char) && text[at - 1] !== '=') depth -= 1;
    if (depth === 1 && char === ';') {
      const field = /^\s*(\w+)(\??):/.exec(line);
      if (field !== null) fields.push({ name: field[1] ?? '', optional: field[2] === '?' });
      line = '';
    } else {
      line += char;
    }
  }
  return fields;
}
