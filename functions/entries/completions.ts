import { front } from '../front.ts';
import { textCompletions } from '../openai/text.ts';

export default front({ add: textCompletions });
