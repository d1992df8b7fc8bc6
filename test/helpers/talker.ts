/** The bundled model under another name, with a template that keeps every turn as it was generated: most models hide their thinking from themselves. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { COUNTDOWN, folder } from './models.ts';

const TEMPLATE = `{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} <think> {{ m['reasoning_content'] }} </think> {{ m['content'] }} {{ eos_token }}`
  + `{% else %} {{ m['role'] }} {{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %} <think>{% endif %}`;

/** A folder for RUMINATE_MODELS with `talker-<variant>`; `removeFolders` takes it away. */
export function talkers(...variants: readonly ('cr2' | 'dense')[]): string {
  const models = folder();
  for (const variant of variants) {
    const model = path.join(models, `talker-${variant}`);
    cpSync(path.join(COUNTDOWN, variant), model, { recursive: true });
    const file = path.join(model, 'tokenizer_config.json');
    writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as object), chat_template: TEMPLATE }));
  }
  return models;
}
