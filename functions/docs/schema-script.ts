/** Runs in the browser: what a JSON schema says of each field, in a line. */
export const SCHEMA_SCRIPT = `
let spec;
const resolve = (schema) => (schema && schema.$ref ? spec.components.schemas[schema.$ref.split('/').pop()] : schema) || {};

function typeOf(given) {
  const schema = resolve(given);
  if ('const' in schema) return JSON.stringify(schema.const);
  if (schema.enum) {
    const values = schema.enum.map((value) => JSON.stringify(value));
    // Of a table, such as that of the codes, a few rows: /openapi.json has all.
    return values.length <= 12 ? values.join(' | ') : [...values.slice(0, 3), '… ' + (values.length - 3) + ' more'].join(' | ');
  }
  const any = schema.anyOf || schema.oneOf;
  if (any) return [...new Set(any.map(typeOf))].join(' | ');
  if (schema.allOf) return typeOf(schema.allOf[0]);
  if ([].concat(schema.type).includes('array') && schema.type !== 'array') return [].concat(schema.type).filter((type) => type !== 'array').join(' | ') + ' | list';
  if (schema.type === 'array' && schema.maxItems === 0) return 'empty list';
  if (schema.type === 'array') return 'list of ' + (schema.prefixItems ? schema.prefixItems.map(typeOf).join(', ') : typeOf(schema.items || {}));
  const least = schema.minimum ?? (schema.exclusiveMinimum === undefined ? undefined : '>' + schema.exclusiveMinimum);
  const most = schema.maximum ?? (schema.exclusiveMaximum === undefined ? undefined : '<' + schema.exclusiveMaximum);
  const bound = (value) => (typeof value === 'number' && Math.abs(value) >= 2 ** 53 - 1 ? undefined : value);
  const range = [bound(least), bound(most)];
  const words = range.every((value) => value === undefined) ? '' : ' ' + (range[0] ?? '') + '…' + (range[1] ?? '');
  return [].concat(schema.type || 'any').join(' | ') + words;
}

/** Every field below a schema with its whole name; one that several alternatives have is there once, with all their types. */
function fieldsOf(given) {
  const found = new Map();
  collect(given, '', 0, found);
  return [...found].map(([name, field]) => ({ name, ...field, type: [...field.types].join(' | ') }));
}

function collect(given, prefix, depth, found) {
  const schema = resolve(given);
  const parts = schema.allOf || schema.anyOf || schema.oneOf;
  if (parts) return parts.forEach((part) => collect(part, prefix, depth, found));
  if (schema.type === 'array' && schema.items) return collect(schema.items, prefix + '[]', depth, found);
  if (!schema.properties || depth > 4) return;
  for (const [name, field] of Object.entries(schema.properties)) {
    const whole = prefix === '' ? name : prefix + '.' + name;
    const known = found.get(whole) || { types: new Set(), required: true, about: '' };
    found.set(whole, known);
    known.types.add(typeOf(field));
    known.required = known.required && (schema.required || []).includes(name);
    known.about ||= field.description || resolve(field).description || '';
    collect(field, whole, depth + 1, found);
  }
}
`;
