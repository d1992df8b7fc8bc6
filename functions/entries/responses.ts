import { front } from '../front.ts';
import { responses } from '../openai/responses.ts';

export default front({ add: responses });
