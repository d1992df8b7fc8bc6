import { front } from '../front.ts';
import { chatCompletions } from '../openai/chat.ts';

export default front({ add: chatCompletions });
