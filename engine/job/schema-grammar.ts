/**
 * A JSON Schema as rules: whatever they generate is valid against it. Where a schema leaves something open the rules may be narrower (a key that
 * is not declared only where the schema says that there may be one, numbers of 15 digits, properties in the order of the schema); what they
 * cannot keep is refused by name, and nothing is ignored but annotations.
 */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { type Rules, literal } from './ebnf.ts';
import { boundedString, distinctArray, jsonLiteral, otherKey } from './json-rules.ts';
import { type Bounds, FORMATS, integerBody, multiplesBody, numberBody } from './number-rules.ts';
import { PatternRefusal, patternRule } from './pattern-rules.ts';

type Schema = Readonly<Record<string, unknown>>;
type TypeName = 'object' | 'array' | 'string' | 'number' | 'integer' | 'boolean' | 'null';

/** They say something about a value and restrict none. */
const ANNOTATIONS = new Set([
  'title', 'description', 'default', 'examples', 'example', 'deprecated', 'readOnly', 'writeOnly', 'discriminator', 'contentEncoding', 'contentMediaType',
  '$schema', '$id', '$comment', '$anchor', '$defs', 'definitions',
]);

const TYPES: Readonly<Record<TypeName, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems', 'uniqueItems'],
  string: ['minLength', 'maxLength', 'format', 'pattern'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  boolean: [],
  null: [],
};
const TYPE_NAMES = Object.keys(TYPES) as readonly TypeName[];
const SUPPORTED = new Set(['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref', ...Object.values(TYPES).flat()]);

/** @returns the rule of values of `schema`. @throws EngineError ERR_OPTION with the place in the schema and what is wrong there. */
export function schemaRule(rules: Rules, schema: unknown, where: string): string {
  return new Converter(rules, schema, where).convert();
}

class Converter {
  readonly #rules: Rules;
  readonly #root: unknown;
  readonly #where: string;
  /** Rules of what `$ref` points at, by pointer: a schema may contain itself. */
  readonly #refs = new Map<string, string>();
  /** Rules that are nothing but one of others. */
  readonly #aliases = new Map<string, readonly string[]>();
  #schemas = 0;

  constructor(rules: Rules, root: unknown, where: string) {
    this.#rules = rules;
    this.#root = root;
    this.#where = where;
  }

  convert(): string {
    const root = this.#rule(this.#root, '', 0);
    const open = new Set<string>();
    const done = new Set<string>();
    for (const name of this.#aliases.keys()) this.#checkEnds(name, open, done);
    return root;
  }

  /** Depth first; each rule once. */
  #checkEnds(name: string, open: Set<string>, done: Set<string>): void {
    if (done.has(name)) return;
    if (open.has(name)) throw this.#refused('', 'has a $ref that leads back to itself with no object or list between');
    open.add(name);
    for (const next of this.#aliases.get(name) ?? []) this.#checkEnds(next, open, done);
    open.delete(name);
    done.add(name);
  }

  #rule(schema: unknown, at: string, depth: number): string {
    if (depth > LIMITS.SCHEMA_DEPTH_MAX) throw this.#refused(at, `is more than ${LIMITS.SCHEMA_DEPTH_MAX} levels deep`);
    if (++this.#schemas > LIMITS.SCHEMAS_MAX) throw this.#refused('', `has more than ${LIMITS.SCHEMAS_MAX} schemas in it`);
    if (schema === true) return 'value';
    if (schema === false) throw this.#refused(at, 'allows no value');
    if (!isObject(schema)) throw this.#refused(at, 'must be an object or true');
    const keys = Object.keys(schema).filter((key) => !ANNOTATIONS.has(key));
    const unknown = keys.find((key) => !SUPPORTED.has(key));
    if (unknown !== undefined) throw this.#refused(at, `has ${JSON.stringify(unknown.slice(0, 64))}, which is not supported`);
    if (schema.$ref !== undefined) return this.#ref(schema.$ref, this.#alone(keys, '$ref', at), depth);
    if (schema.const !== undefined) return this.#values([schema.const], schema, keys, 'const', at);
    if (schema.enum !== undefined) return this.#values(schema.enum, schema, keys, 'enum', at);
    for (const key of ['anyOf', 'oneOf', 'allOf'] as const) {
      if (schema[key] !== undefined) return this.#combined(schema[key], key, this.#alone(keys, key, at), depth);
    }
    const types = this.#typesOf(schema, keys, at);
    if (types === null) return 'value';
    return this.#oneOf(types.map((type) => this.#ofType(type, schema, at, depth)));
  }

  /** @returns the place of `key`, beside which there is nothing else to keep. */
  #alone(keys: readonly string[], key: string, at: string): string {
    const other = keys.find((name) => name !== key);
    if (other !== undefined) throw this.#refused(at, `has ${other} beside ${key}, which is not supported: put it into the schemas there`);
    return `${at}/${key}`;
  }

  #ref(ref: unknown, at: string, depth: number): string {
    if (typeof ref !== 'string' || !ref.startsWith('#')) throw this.#refused(at, 'must point into the schema itself: "#/$defs/name"');
    const known = this.#refs.get(ref);
    if (known !== undefined) return known;
    const found = this.#at(ref);
    if (found === undefined) throw this.#refused(at, `points at nothing: ${JSON.stringify(ref.slice(0, 128))}`);
    const name = this.#rules.fresh('ref');
    this.#refs.set(ref, name);
    const target = this.#rule(found, ref.slice(1), depth + 1);
    this.#aliases.set(name, [target]);
    return this.#rules.set(name, target);
  }

  #values(values: unknown, schema: Schema, keys: readonly string[], key: 'enum' | 'const', at: string): string {
    return this.#rules.add('one_of', this.#literals(values, schema, keys, key, at).join(' | '));
  }

  #literals(values: unknown, schema: Schema, keys: readonly string[], key: 'enum' | 'const', at: string): readonly string[] {
    if (!Array.isArray(values) || values.length === 0) throw this.#refused(`${at}/${key}`, 'must be a list of values');
    const other = keys.find((name) => name !== key && name !== 'type');
    if (other !== undefined) throw this.#refused(at, `has ${other} beside ${key}, which is not supported`);
    const types = this.#typesOf(schema, keys, at);
    const fitting = values.filter((value) => types === null || types.some((type) => isOfType(value, type)));
    if (fitting.length === 0) throw this.#refused(at, `has no value of its type in ${key}`);
    return [...new Set(fitting.map(jsonLiteral))];
  }

  #combined(list: unknown, key: 'anyOf' | 'oneOf' | 'allOf', at: string, depth: number): string {
    if (!Array.isArray(list) || list.length === 0) throw this.#refused(at, 'must be a list of schemas');
    if (key === 'allOf' && list.length > 1) throw this.#refused(at, 'has more than one schema, which is not supported: join them');
    if (key === 'oneOf') {
      if (list.length > LIMITS.SCHEMA_ALTERNATIVES_MAX) throw this.#refused(at, `has more than ${LIMITS.SCHEMA_ALTERNATIVES_MAX} schemas, which are compared with each other: use anyOf`);
      const targets = list.map((one) => this.#target(one));
      const overlap = targets.some((one, i) => targets.slice(0, i).some((other) => !areDisjoint(one, other)));
      if (overlap) throw this.#refused(at, 'may have values that fit two of its schemas, which is not supported: use anyOf, or a const property that tells them apart');
    }
    return this.#oneOf(list.map((schema, i) => this.#rule(schema, `${at}/${i}`, depth + 1)));
  }

  #target(schema: unknown): unknown {
    return isObject(schema) && typeof schema.$ref === 'string' ? this.#at(schema.$ref) : schema;
  }

  /** undefined: nothing is there. */
  #at(ref: string): unknown {
    if (ref !== '#' && !ref.startsWith('#/')) return undefined;
    let found: unknown = this.#root;
    for (const part of ref.split('/').slice(1)) {
      const key = decodePart(part);
      found = typeof found === 'object' && found !== null && Object.hasOwn(found, key) ? (found as Record<string, unknown>)[key] : undefined;
    }
    return found;
  }

  #oneOf(names: readonly string[]): string {
    const distinct = [...new Set(names)];
    if (distinct.length === 1) return distinct[0] ?? 'value';
    const name = this.#rules.add('any_of', distinct.join(' | '));
    this.#aliases.set(name, distinct);
    return name;
  }

  /** null: any. Without a type it is the one that the keywords are about. */
  #typesOf(schema: Schema, keys: readonly string[], at: string): readonly TypeName[] | null {
    const { type } = schema;
    if (type !== undefined) {
      const names = Array.isArray(type) ? type : [type];
      const wrong = names.find((name) => !TYPE_NAMES.includes(name as TypeName));
      if (names.length === 0 || wrong !== undefined) throw this.#refused(`${at}/type`, `must be one of ${TYPE_NAMES.join(', ')}, or a list of them`);
      return names as TypeName[];
    }
    const implied = TYPE_NAMES.filter((name) => TYPES[name].some((keyword) => keys.includes(keyword)) && name !== 'integer');
    return implied.length === 0 ? null : implied;
  }

  #ofType(type: TypeName, schema: Schema, at: string, depth: number): string {
    switch (type) {
      case 'object': return this.#object(schema, at, depth);
      case 'array': return this.#array(schema, at, depth);
      case 'string': return this.#string(schema, at);
      case 'number':
      case 'integer': return this.#number(type, schema, at);
      case 'boolean':
      case 'null': return type;
    }
  }

  #string(schema: Schema, at: string): string {
    const { format, pattern } = schema;
    const least = this.#count(schema, 'minLength', at, LIMITS.SCHEMA_CHARS_MAX) ?? 0;
    const most = this.#count(schema, 'maxLength', at, LIMITS.SCHEMA_CHARS_MAX);
    if (most !== null && most < least) throw this.#refused(at, 'has a maxLength below its minLength');
    if (pattern !== undefined) return this.#pattern(pattern, format, least, most, at);
    if (format === undefined) return least === 0 && most === null ? 'string' : boundedString(this.#rules, least, most);
    if (typeof format !== 'string' || !Object.hasOwn(FORMATS, format)) {
      throw this.#refused(`${at}/format`, `must be one of ${Object.keys(FORMATS).join(', ')}; others are not supported`);
    }
    if (least > 0 || most !== null) throw this.#refused(at, 'has a length beside a format, which is not supported');
    const name = `format_${format.replace('-', '_')}`;
    return this.#rules.has(name) ? name : this.#rules.set(name, `"\\"" ${FORMATS[format]} "\\""`);
  }

  /** Where what it matches has the length by itself. */
  #pattern(pattern: unknown, format: unknown, least: number, most: number | null, at: string): string {
    if (format !== undefined) throw this.#refused(at, 'has a format beside a pattern, which is not supported');
    try {
      const rule = patternRule(this.#rules, typeof pattern === 'string' ? pattern : '(');
      if (rule.least < least || (most !== null && (rule.most === null || rule.most > most))) {
        throw new PatternRefusal(`matches texts of ${rule.least} to ${rule.most ?? 'any number of'} characters, which is not within minLength and maxLength; say the length in the pattern`);
      }
      return this.#rules.add('pattern', `"\\"" ${rule.body} "\\""`);
    } catch (error) {
      if (error instanceof PatternRefusal) throw this.#refused(`${at}/pattern`, error.message);
      throw error;
    }
  }

  #number(type: 'number' | 'integer', schema: Schema, at: string): string {
    const { minimum = -Infinity, maximum = Infinity, exclusiveMinimum = -Infinity, exclusiveMaximum = Infinity } = schema;
    const given = { minimum, maximum, exclusiveMinimum, exclusiveMaximum };
    for (const [key, value] of Object.entries(given)) {
      if (typeof value !== 'number') throw this.#refused(`${at}/${key}`, 'must be a number');
      if (type === 'number' && Number.isFinite(value) && !Number.isInteger(value)) throw this.#refused(`${at}/${key}`, 'must be a whole number; other bounds are not supported');
    }
    const { minimum: low, maximum: high, exclusiveMinimum: above, exclusiveMaximum: below } = given as Record<keyof typeof given, number>;
    const divisor = type === 'integer' ? this.#divisor(schema, at) : 1;
    if (divisor === 1 && low === -Infinity && high === Infinity && above === -Infinity && below === Infinity) return type;
    const bounds: Bounds = type === 'integer'
      ? { least: Math.max(Math.ceil(low), Math.floor(above) + 1), leastOpen: false, most: Math.min(Math.floor(high), Math.ceil(below) - 1), mostOpen: false }
      : { least: Math.max(low, above), leastOpen: above >= low && above !== -Infinity, most: Math.min(high, below), mostOpen: below <= high && below !== Infinity };
    const body = divisor > 1 ? multiplesBody(bounds, divisor) : type === 'integer' ? integerBody(bounds) : numberBody(bounds);
    if (body === undefined) throw this.#refused(`${at}/multipleOf`, `must leave at most ${LIMITS.SCHEMA_MULTIPLES_MAX} numbers between minimum and maximum, or be 10, 100 or 1000`);
    if (body === null) throw this.#refused(at, 'has bounds between which there is no number of 15 digits');
    return this.#rules.add('number', body);
  }

  #divisor({ multipleOf: given = 1 }: Schema, at: string): number {
    if (!Number.isSafeInteger(given) || (given as number) < 1) throw this.#refused(`${at}/multipleOf`, 'must be a whole number above 0; others are not supported');
    return given as number;
  }

  #array(schema: Schema, at: string, depth: number): string {
    const prefix = schema.prefixItems ?? [];
    if (!Array.isArray(prefix)) throw this.#refused(`${at}/prefixItems`, 'must be a list of schemas');
    const least = this.#count(schema, 'minItems', at, LIMITS.SCHEMA_ITEMS_MAX) ?? 0;
    const most = this.#count(schema, 'maxItems', at, LIMITS.SCHEMA_ITEMS_MAX);
    // What no schema of the list is about is left out where there is a list.
    const hasMore = schema.items === undefined ? prefix.length === 0 : schema.items !== false;
    const more = hasMore ? this.#rule(schema.items ?? true, `${at}/items`, depth + 1) : null;
    const places = prefix.map((item, i) => this.#rule(item, `${at}/prefixItems/${i}`, depth + 1));
    if (most !== null && most < least) throw this.#refused(at, 'has maxItems below its minItems');
    if (this.#isUnique(schema, at) && (most ?? 2) > 1) return this.#distinct(schema, least, most, at);
    if (more === null && least > places.length) throw this.#refused(at, `must have ${least} items and has schemas for ${places.length}`);
    const last = more === null ? places.length : most;
    // The array after its last item, after its first `length` items: from the end to the beginning.
    const end = this.#rules.add('items', 'ws "]"');
    let next = end;
    const fixed = last ?? Math.max(least, places.length);
    if (last === null && more !== null) {
      next = this.#rules.fresh('items');
      this.#rules.set(next, `ws "]" | "," ws ${more} ${next}`);
    }
    for (let length = fixed - 1; length >= 1; length--) {
      const item = places[length] ?? more ?? 'value';
      next = this.#rules.add('items', `${length >= least ? 'ws "]" | ' : ''}"," ws ${item} ${next}`);
    }
    const first = places[0] ?? more;
    const empty = least === 0 ? ['"]"'] : [];
    const some = first === null || first === undefined || last === 0 ? [] : [`${first} ${next}`];
    if (empty.length + some.length === 0) throw this.#refused(at, 'allows no value');
    return this.#rules.add('array', `"[" ws (${[...empty, ...some].join(' | ')})`);
  }

  #isUnique({ uniqueItems: given = false }: Schema, at: string): boolean {
    if (typeof given !== 'boolean') throw this.#refused(`${at}/uniqueItems`, 'must be true or false');
    return given;
  }

  /** Which items were there is remembered of few values only. */
  #distinct(schema: Schema, least: number, most: number | null, at: string): string {
    const items = this.#target(schema.items);
    const values = !isObject(items) ? undefined : items.const !== undefined ? [items.const] : items.enum;
    const few = Array.isArray(values) && values.length <= LIMITS.SCHEMA_UNIQUE_MAX && values.every((value) => typeof value !== 'object' || value === null);
    if (!few || !isObject(items) || schema.prefixItems !== undefined) {
      throw this.#refused(`${at}/uniqueItems`, `needs items that are an enum of at most ${LIMITS.SCHEMA_UNIQUE_MAX} texts, numbers, booleans or null, or a maxItems of 1; others are not supported`);
    }
    const keys = Object.keys(items).filter((key) => !ANNOTATIONS.has(key));
    const literals = this.#literals(values, items, keys, items.const !== undefined ? 'const' : 'enum', `${at}/items`);
    if (least > literals.length) throw this.#refused(at, `must have ${least} items, no two alike, of ${literals.length} values`);
    return distinctArray(this.#rules, literals, least, Math.min(most ?? literals.length, literals.length));
  }

  #object(schema: Schema, at: string, depth: number): string {
    const { properties = {}, required = [], additionalProperties } = schema;
    if (!isObject(properties)) throw this.#refused(`${at}/properties`, 'must be an object of schemas');
    if (!Array.isArray(required) || required.some((key) => typeof key !== 'string')) throw this.#refused(`${at}/required`, 'must be a list of names');
    const needed = new Set(required as string[]);
    const declared = Object.keys(properties);
    const long = [...declared, ...needed].find((key) => key.length > LIMITS.SCHEMA_KEY_CHARS_MAX);
    if (long !== undefined) throw this.#refused(`${at}/properties`, `has a name of more than ${LIMITS.SCHEMA_KEY_CHARS_MAX} characters`);
    const isMap = schema.properties === undefined && needed.size === 0;
    const extra = additionalProperties === undefined ? isMap : additionalProperties !== false;
    const other = extra ? this.#rule(additionalProperties ?? true, `${at}/additionalProperties`, depth + 1) : null;
    const lacking = [...needed].filter((key) => !Object.hasOwn(properties, key));
    if (lacking.length > 0 && additionalProperties === false) throw this.#refused(`${at}/required`, `names ${JSON.stringify(lacking[0]?.slice(0, 64))}, which is no property`);
    const pairs = [
      ...declared.map((key) => ({ key, needed: needed.has(key), value: this.#rule(properties[key], `${at}/properties/${pointerPart(key)}`, depth + 1) })),
      ...lacking.map((key) => ({ key, needed: true, value: other ?? 'value' })),
    ];
    const otherPair = other === null ? null : `${otherKey(this.#rules, pairs.map(({ key }) => key))} colon ${other}`;
    // What may follow the pairs up to here, if one of them is there (`later`) or none (`first`): from the end to the beginning.
    let later = this.#rules.fresh('pairs');
    this.#rules.set(later, `ws "}"${otherPair === null ? '' : ` | "," ws ${otherPair} ${later}`}`);
    let first: string | null = this.#rules.add('pairs', `"}"${otherPair === null ? '' : ` | ${otherPair} ${later}`}`);
    for (const { key, needed: isNeeded, value } of pairs.toReversed()) {
      const pair = `${literal(JSON.stringify(key))} colon ${value} ${later}`;
      first = this.#rules.add('pairs', `${pair}${isNeeded ? '' : ` | ${first}`}`);
      later = this.#rules.add('pairs', `"," ws ${pair}${isNeeded ? '' : ` | ${later}`}`);
    }
    return this.#rules.add('object', `"{" ws ${first}`);
  }

  #count(schema: Schema, key: string, at: string, most: number): number | null {
    const value = schema[key];
    if (value === undefined) return null;
    if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) > most) throw this.#refused(`${at}/${key}`, `must be an integer from 0 to ${most}`);
    return value as number;
  }

  #refused(at: string, what: string): EngineError {
    return new EngineError('ERR_OPTION', `${this.#where} must be a JSON Schema that can be kept: ${at === '' ? 'it' : at.slice(0, 256)} ${what}.`);
  }
}

/** Whether no value can fit both, as far as that is easily seen: other types, other constants, or objects that a required constant tells apart. */
function areDisjoint(a: unknown, b: unknown): boolean {
  if (!isObject(a) || !isObject(b)) return false;
  const [left, right] = [constantsOf(a), constantsOf(b)];
  if (left !== null && right !== null) return [...left].every((value) => !right.has(value));
  const [types, others] = [typeSet(a), typeSet(b)];
  if (types !== null && others !== null && types.every((type) => !others.includes(type))) return true;
  if (types?.join() !== 'object' || others?.join() !== 'object' || !isObject(a.properties) || !isObject(b.properties)) return false;
  const { properties: mine } = a;
  const { properties: theirs } = b;
  const fixed = Object.keys(mine).filter((key) => isConstant(mine[key]) && Object.hasOwn(theirs, key) && isConstant(theirs[key]));
  const both = fixed.filter((key) => [a, b].every(({ required }) => Array.isArray(required) && required.includes(key)));
  return both.some((key) => areDisjoint(mine[key], theirs[key]));
}

function isConstant(schema: unknown): boolean {
  return isObject(schema) && (schema.const !== undefined || schema.enum !== undefined);
}

/** Of schemas that are compared with many others. */
const constants = new WeakMap<Schema, ReadonlySet<string> | null>();

function constantsOf(schema: Schema): ReadonlySet<string> | null {
  const known = constants.get(schema);
  if (known !== undefined) return known;
  const values = schema.const !== undefined ? [schema.const] : schema.enum;
  const found = Array.isArray(values) ? new Set(values.map((value) => JSON.stringify(value))) : null;
  constants.set(schema, found);
  return found;
}

/** `integer` counts as `number`. */
function typeSet({ type }: Schema): readonly string[] | null {
  if (type === undefined) return null;
  return (Array.isArray(type) ? type : [type]).map((name) => (name === 'integer' ? 'number' : String(name)));
}

function isOfType(value: unknown, type: TypeName): boolean {
  switch (type) {
    case 'object': return isObject(value);
    case 'array': return Array.isArray(value);
    case 'null': return value === null;
    case 'integer': return Number.isInteger(value);
    default: return typeof value === type;
  }
}

function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function decodePart(part: string): string {
  let text = part;
  try {
    text = decodeURIComponent(part);
  } catch {
    // A pointer may have a % of its own.
  }
  return text.replaceAll('~1', '/').replaceAll('~0', '~');
}

function pointerPart(key: string): string {
  return key.slice(0, 64).replaceAll('~', '~0').replaceAll('/', '~1');
}
