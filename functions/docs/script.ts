/**
 * Runs in the browser: every operation of /openapi.json with its fields, and a way to send it. Text from the document goes in as text,
 * never as markup.
 */
import { SCHEMA_SCRIPT } from './schema-script.ts';

export const SCRIPT = `'use strict';
${SCHEMA_SCRIPT}
const make = (tag, attributes, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
};
const byId = (id) => document.getElementById(id);

/** Paragraphs in which backticks stand for code. */
function prose(text) {
  return text.split(/\\n\\n+/).map((paragraph) => make('p', {}, ...words(paragraph)));
}
function words(text) {
  return text.replaceAll('\\n', ' ').split('\\x60').map((part, index) => (index % 2 === 1 ? make('code', { textContent: part }) : part));
}

function fieldList(fields) {
  return make('ul', { className: 'fields' }, ...fields.map(({ name, type, required, about }) => {
    const cut = Math.max(name.lastIndexOf('.') + 1, 0);
    return make('li', {},
      make('span', { className: 'name' }, make('span', { className: 'above', textContent: name.slice(0, cut) }), name.slice(cut)),
      make('span', { className: 'type', textContent: type }),
      required ? make('span', { className: 'required', textContent: 'required' }) : null,
      about ? make('p', {}, ...words(about)) : null);
  }));
}

function operation(method, path, described) {
  const details = make('details', { className: 'operation', id: method + path }, make('summary', {},
    make('span', { className: 'method ' + method, textContent: method }), make('span', { className: 'path', textContent: path }),
    make('span', { className: 'summary', textContent: described.summary || '' })));
  // Filled when it is opened: a hundred lists would be built for nobody.
  details.addEventListener('toggle', () => {
    if (details.childElementCount === 1) details.append(inside(method, path, described));
  });
  return details;
}

function inside(method, path, described) {
  const parameters = described.parameters || [];
  const bodies = described.requestBody ? described.requestBody.content : {};
  const isForm = 'multipart/form-data' in bodies;
  const body = isForm ? bodies['multipart/form-data'].schema : bodies['application/json'] && bodies['application/json'].schema;
  const told = make('div', {});
  if (described.description) told.append(make('div', { className: 'about' }, ...prose(described.description)));
  if (parameters.length > 0) {
    told.append(make('h3', { textContent: 'Parameters' }), fieldList(parameters.map(({ name, in: place, schema, required, description }) =>
      ({ name, type: typeOf(schema) + ', in the ' + place, required, about: description || resolve(schema).description }))));
  }
  if (body) told.append(make('h3', { textContent: isForm ? 'Form' : 'Body' }), fieldList(fieldsOf(body)));
  told.append(make('h3', { textContent: 'Answers' }), ...Object.entries(described.responses).map(([status, answer]) => answerOf(status, answer)));
  return make('div', { className: 'inside' }, told, trying(method, path, parameters, body, isForm));
}

function answerOf(status, { description, content }) {
  const schema = content && Object.entries(content).find(([type]) => type.includes('json'));
  const title = [make('span', { className: 'status', textContent: status }), description + (content ? ' · ' + Object.keys(content).join(', ') : '')];
  const fields = schema ? fieldsOf(schema[1].schema) : [];
  return fields.length === 0 ? make('div', { className: 'about' }, make('p', {}, ...title)) : make('details', {}, make('summary', {}, ...title), fieldList(fields));
}

function trying(method, path, parameters, body, isForm) {
  const inputs = parameters.map((parameter) => ({ parameter, input: make('input', { placeholder: parameter.required ? 'required' : '' }) }));
  const given = !body ? null : isForm ? formOf(resolve(body)) : make('textarea', { value: JSON.stringify(resolve(body).example ?? {}, null, 2), spellcheck: false });
  if (given) given.setAttribute('aria-label', 'Body');
  const output = make('pre', { hidden: true });
  const ask = () => requestOf(method, path, inputs, given);
  return make('div', { className: 'try' }, make('h3', { textContent: 'Try it' }),
    ...inputs.map(({ parameter, input }) => make('label', {}, parameter.name, input)), given,
    make('div', { className: 'buttons' },
      make('button', { className: 'send', textContent: 'Send', onclick: () => send(ask(), output) }),
      make('button', { textContent: 'Copy as curl', onclick: (event) => copy(curlOf(ask()), event.target) })),
    output);
}

function formOf(schema) {
  return make('form', { onsubmit: (event) => event.preventDefault() }, ...Object.entries(schema.properties).map(([name, field]) =>
    make('label', {}, name, make('input', { name, type: field.format === 'binary' ? 'file' : 'text', value: (field.enum || [''])[0] }))));
}

function requestOf(method, path, inputs, given) {
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
  return { url: url + (query.size > 0 ? '?' + query : ''), method: method.toUpperCase(), headers, body: given === null ? undefined : isForm ? new FormData(given) : given.value };
}

async function send({ url, ...request }, output) {
  output.hidden = false;
  output.textContent = '…';
  try {
    const response = await fetch(url, request);
    output.textContent = response.status + ' ' + response.statusText + '\\n\\n';
    const json = (response.headers.get('content-type') || '').includes('json');
    if (json) output.textContent += JSON.stringify(await response.json(), null, 2);
    else if (response.body) {
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        output.append(part.value);
        output.scrollTop = output.scrollHeight;
      }
    }
  } catch (error) {
    output.textContent = String(error);
  }
}

const quoted = (text) => "'" + text.replaceAll("'", "'\\\\''") + "'";

function curlOf({ url, method, headers, body }) {
  const parts = ['curl -N' + (method === 'GET' ? '' : ' -X ' + method) + ' ' + quoted(location.origin + url)];
  for (const [name, value] of Object.entries(headers)) parts.push('-H ' + quoted(name + ': ' + value));
  if (typeof body === 'string') parts.push('-d ' + quoted(body));
  else if (body) for (const [name, value] of body) parts.push('-F ' + quoted(name + '=' + (typeof value === 'string' ? value : '@' + value.name)));
  return parts.join(' \\\\\\n  ');
}

async function copy(text, button) {
  const before = button.textContent;
  await navigator.clipboard.writeText(text).then(() => { button.textContent = 'Copied'; }, () => { button.textContent = 'Not allowed'; });
  setTimeout(() => { button.textContent = before; }, 1500);
}

/** How to begin, for whoever has just started the server. */
function starts(model) {
  const ask = { model, messages: [{ role: 'user', content: '4 20 8 13 target 59' }], hyperscale: { width: 8 }, stream: true };
  const auth = spec.components.securitySchemes ? " \\\\\\n  -H 'authorization: Bearer KEY'" : '';
  return {
    curl: 'curl -N ' + location.origin + "/v1/chat/completions -H 'content-type: application/json'" + auth + " \\\\\\n  -d '" + JSON.stringify(ask) + "'",
    Python: ['from openai import OpenAI', '', 'client = OpenAI(base_url="' + location.origin + '/v1", api_key="none")', 'answer = client.chat.completions.create(', '    model="' + model + '",',
      '    messages=[{"role": "user", "content": "4 20 8 13 target 59"}],', '    extra_body={"hyperscale": {"width": 8}},', ')', 'print(answer.choices[0].message.content)'].join('\\n'),
    TypeScript: ["import OpenAI from 'openai';", '', "const client = new OpenAI({ baseURL: '" + location.origin + "/v1', apiKey: 'none' });", 'const answer = await client.chat.completions.create({', "  model: '" + model + "',",
      "  messages: [{ role: 'user', content: '4 20 8 13 target 59' }],", '  // @ts-expect-error: what this server has beside OpenAI\\'s', '  hyperscale: { width: 8 },', '});', 'console.log(answer.choices[0].message.content);'].join('\\n'),
  };
}

function showStarts() {
  const example = spec.components.schemas.ChatCompletionRequest;
  const texts = starts((example && example.example && example.example.model) || 'countdown');
  const pre = document.querySelector('#start pre');
  const tabs = Object.entries(texts).map(([name, text]) => make('button', { type: 'button', role: 'tab', textContent: name, onclick: () => choose(name, text) }));
  const choose = (name, text) => {
    pre.textContent = text;
    tabs.forEach((tab) => tab.setAttribute('aria-selected', String(tab.textContent === name)));
  };
  document.querySelector('#start .tabs').append(...tabs);
  choose(...Object.entries(texts)[0]);
  document.querySelector('#start .copy').onclick = (event) => copy(pre.textContent, event.target);
  byId('start').hidden = false;
}

function filter(text) {
  const wanted = text.toLowerCase();
  for (const group of document.querySelectorAll('[data-group]')) {
    let any = false;
    for (const entry of group.querySelectorAll('[data-text]')) {
      entry.hidden = !entry.dataset.text.includes(wanted);
      any ||= !entry.hidden;
    }
    group.hidden = !any;
  }
}

function openHash() {
  const named = byId(decodeURIComponent(location.hash.slice(1)));
  if (named && named.tagName === 'DETAILS') named.open = true;
  if (named) named.scrollIntoView();
}

function group(tag, ...children) {
  const element = make('div', {}, make('h2', { textContent: tag }), ...children);
  element.dataset.group = tag;
  return element;
}

(async () => {
  try {
    spec = await (await fetch('/openapi.json')).json();
  } catch (error) {
    byId('about').textContent = 'The document /openapi.json cannot be read: ' + error;
    return;
  }
  byId('about').replaceChildren(...prose(spec.info.description || ''));
  byId('version').textContent = spec.info.version;
  byId('key').hidden = !(spec.components && spec.components.securitySchemes);
  const tags = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, described] of Object.entries(methods)) {
      const tag = (described.tags || ['Other'])[0];
      tags.set(tag, [...(tags.get(tag) || []), [method, path, described]]);
    }
  }
  const searched = (element, [method, path, { summary }]) => {
    element.dataset.text = (method + ' ' + path + ' ' + summary).toLowerCase();
    return element;
  };
  byId('operations').replaceChildren(...[...tags].map(([tag, list]) => group(tag, ...list.map((one) => searched(operation(...one), one)))));
  byId('index').replaceChildren(...[...tags].map(([tag, list]) => group(tag, ...list.map((one) => searched(make('a', { href: '#' + encodeURIComponent(one[0] + one[1]) },
    make('span', { className: 'method ' + one[0], textContent: one[0] }), one[2].summary || one[1]), one)))));
  byId('filter').addEventListener('input', (event) => filter(event.target.value));
  byId('key').addEventListener('submit', (event) => event.preventDefault());
  showStarts();
  addEventListener('hashchange', openHash);
  openHash();
})();
`;
