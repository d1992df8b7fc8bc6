import { front } from '../front.ts';
import { models } from '../openai/models.ts';

export default front({ add: models, asksStore: false });
