/**
 * Runs in the browser: every operation of /openapi.json with its fields, and a way to send it. Text from the document goes in as text,
 * never as markup.
 */
export const SCRIPT = `'use strict';
const make = (tag, attributes, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
};
let spec;
const resolve = (schema) => (schema && schema.$ref ? spec.components.schemas[schema.$ref.split('/').pop()] : schema) || {};

function typeOf(given) {
  const schema = resolve(given);
  if ('const' in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const any = schema.anyOf || schema.oneOf;
  if (any) return [...new Set(any.map(typeOf))].join(' | ');
  if (schema.allOf) return typeOf(schema.allOf[0]);
  if (schema.type === 'array') return 'list of ' + (schema.prefixItems ? schema.prefixItems.map(typeOf).join(', ') : typeOf(schema.items || {}));
  const least = schema.minimum ?? schema.exclusiveMinimum;
  const most = schema.maximum ?? schema.exclusiveMaximum;
  const range = typeof most === 'number' && most < Number.MAX_SAFE_INTEGER ? ' ' + (least ?? '') + ' … ' + most : '';
  return [].concat(schema.type || 'any').join(' | ') + range;
}

/** Text in which backticks stand for code. */
function about(text) {
  return text.split('\x60').map((part, index) => (index % 2 === 1 ? make('code', { textContent: part }) : part));
}

/** Every field below a schema with its whole name. */
function fieldsOf(given, prefix, depth) {
  const schema = resolve(given);
  if (schema.allOf) return schema.allOf.flatMap((part) => fieldsOf(part, prefix, depth));
  const any = schema.anyOf || schema.oneOf;
  if (any) return any.flatMap((part) => fieldsOf(part, prefix, depth));
  if (schema.type === 'array' && schema.items) return fieldsOf(schema.items, prefix + '[]', depth);
  if (!schema.properties || depth > 4) return [];
  return Object.entries(schema.properties).flatMap(([name, field]) => {
    const whole = prefix === '' ? name : prefix + '.' + name;
    const row = { name: whole, type: typeOf(field), required: (schema.required || []).includes(name), about: field.description || resolve(field).description || '' };
    return [row, ...fieldsOf(field, whole, depth + 1)];
  });
}

function table(fields) {
  const seen = new Map(fields.map((field) => [field.name + field.type, field]));
  const rows = [...seen.values()].map(({ name, type, required, about: about_ }) => make('tr', {},
    make('td', {}, make('code', { textContent: name }), required ? make('span', { className: 'required', textContent: ' *', title: 'required' }) : null),
    make('td', { className: 'type', textContent: type }),
    make('td', {}, ...about(about_))));
  return make('table', {}, make('tbody', {}, ...rows));
}

function operation(method, path, described) {
  const parameters = described.parameters || [];
  const bodies = described.requestBody ? described.requestBody.content : {};
  const isForm = 'multipart/form-data' in bodies;
  const body = isForm ? bodies['multipart/form-data'].schema : bodies['application/json'] && bodies['application/json'].schema;
  const details = make('details', {}, make('summary', {},
    make('span', { className: 'method', textContent: method }), make('span', { className: 'path', textContent: path }),
    make('span', { className: 'summary', textContent: described.summary || '' })));
  // Filled when it is opened: a hundred tables would be built for nobody.
  details.addEventListener('toggle', () => {
    if (details.childElementCount > 1) return;
    if (described.description) details.append(make('p', { className: 'about' }, ...about(described.description)));
    const inputs = parameters.map((parameter) => ({ parameter, input: make('input', { placeholder: parameter.in }) }));
    if (inputs.length > 0) details.append(make('h3', { textContent: 'Parameters' }), make('table', {}, make('tbody', {}, ...inputs.map(({ parameter, input }) =>
      make('tr', {}, make('td', {}, make('code', { textContent: parameter.name })), make('td', { className: 'type', textContent: typeOf(parameter.schema) }), make('td', {}, input))))));
    let given = null;
    if (body) {
      given = isForm ? formOf(resolve(body)) : make('textarea', { value: JSON.stringify(resolve(body).example ?? {}, null, 2), spellcheck: false });
      given.setAttribute('aria-label', 'Body');
      details.append(make('h3', { textContent: 'Body' }), table(fieldsOf(body, '', 0)), make('h3', { textContent: 'Try it' }), given);
    }
    const output = make('pre', { hidden: true });
    const button = make('button', { textContent: 'Send' });
    button.addEventListener('click', () => send(method, path, inputs, given, output));
    details.append(button, output);
    for (const [status, { description, content }] of Object.entries(described.responses)) {
      const schema = content && content['application/json'] && content['application/json'].schema;
      const types = content ? Object.keys(content).join(', ') : '';
      details.append(make('h3', { textContent: status + ' ' + description + (types === '' ? '' : ' (' + types + ')') }));
      if (schema && status.startsWith('2')) details.append(table(fieldsOf(schema, '', 0)));
    }
  });
  return details;
}

function formOf(schema) {
  return make('form', { onsubmit: (event) => event.preventDefault() }, ...Object.entries(schema.properties).map(([name, field]) =>
    make('input', { name, placeholder: name, type: field.format === 'binary' ? 'file' : 'text', value: (field.enum || [''])[0] })));
}

async function send(method, path, inputs, given, output) {
  const headers = {};
  const query = new URLSearchParams();
  let url = path;
  for (const { parameter, input } of inputs) {
    if (parameter.in === 'path') url = url.replace('{' + parameter.name + '}', encodeURIComponent(input.value));
    else if (input.value === '') continue;
    else if (parameter.in === 'query') query.set(parameter.name, input.value);
    else headers[parameter.name] = input.value;
  }
  const key = document.querySelector('#key input').value;
  if (key !== '') headers.authorization = 'Bearer ' + key;
  const isForm = given !== null && given.tagName === 'FORM';
  if (given !== null && !isForm) headers['content-type'] = 'application/json';
  const body = given === null ? undefined : isForm ? new FormData(given) : given.value;
  output.hidden = false;
  output.textContent = '…';
  try {
    const response = await fetch(url + (query.size > 0 ? '?' + query : ''), { method: method.toUpperCase(), headers, body });
    output.textContent = response.status + ' ' + response.statusText + '\\n\\n';
    const json = (response.headers.get('content-type') || '').includes('json');
    if (json) output.textContent += JSON.stringify(await response.json(), null, 2);
    else if (response.body) {
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) output.append(part.value);
    }
  } catch (error) {
    output.textContent = String(error);
  }
}

(async () => {
  const operations = document.getElementById('operations');
  try {
    spec = await (await fetch('/openapi.json')).json();
  } catch (error) {
    operations.textContent = 'The document /openapi.json cannot be read: ' + error;
    return;
  }
  document.getElementById('about').append(...about(spec.info.description || ''));
  document.getElementById('key').hidden = !(spec.components && spec.components.securitySchemes);
  const tags = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, described] of Object.entries(methods)) {
      const tag = (described.tags || ['Other'])[0];
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push(operation(method, path, described));
    }
  }
  operations.replaceChildren(...[...tags].flatMap(([tag, list]) => [make('h2', { textContent: tag }), ...list]));
})();
`;
