/** What the fuzz targets share: how bytes become their inputs, and what may come out. */
import { EngineError, type ErrorCode } from '../../engine/core/errors.ts';
import { LIMITS } from '../../engine/core/limits.ts';

/** Two seconds instead of two minutes: what is tested is that there is an end. The counts stay as they are. */
export function shortenWaits(): void {
  Object.assign(LIMITS, { TOKENIZER_MS_MAX: 2_000, TEMPLATE_MS_MAX: 2_000 });
}

/** The parts of an input, with a NUL between them: no JSON, and no token that is worth a test, has one. */
export function partsOf(data: Uint8Array): readonly string[] {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(data).split('\0');
}

/** Runs the work; a refusal with one of the codes is a result, and anything else is thrown on: that is what the fuzzer looks for. */
export function refused(codes: readonly ErrorCode[], work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof EngineError) || !codes.includes(error.code)) throw error;
  }
}
