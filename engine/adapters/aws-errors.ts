/** What every client of AWS's SDK throws. */

export interface AwsFacts {
  readonly name: string;
  readonly message: string;
  readonly status: number | undefined;
}

export function factsOf(error: unknown): AwsFacts {
  const { name, message, $metadata } = (error ?? {}) as { name?: unknown; message?: unknown; $metadata?: { httpStatusCode?: unknown } };
  const status = $metadata?.httpStatusCode;
  return {
    name: typeof name === 'string' ? name : '',
    message: typeof message === 'string' ? message : String(error),
    status: typeof status === 'number' ? status : undefined,
  };
}

export function isWithoutCredentials(error: unknown): boolean {
  return /^Credentials|CredentialsProviderError/.test(factsOf(error).name);
}

export function isWithoutRegion(error: unknown): boolean {
  return /region is missing/i.test(factsOf(error).message);
}
