/** `s3://bucket/prefix`, as text. */
import { checkKey } from './keys.ts';

/** S3's own rule. */
const BUCKET = /^(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

export const S3_FORM = 'is not of the form s3://bucket/prefix (a bucket has 3 to 63 of a-z, 0-9, "." and "-")';

/** null: it is not of that form. @throws EngineError: the prefix is no name of objects. */
export function parseS3Url(url: string): { readonly bucket: string; readonly prefix: string } | null {
  const match = /^s3:\/\/([^/?#@:]+)(?:\/([^?#]*))?$/i.exec(url);
  const [bucket = '', prefix = ''] = [match?.[1], match?.[2]?.replace(/\/$/, '')];
  if (!BUCKET.test(bucket)) return null;
  if (prefix !== '') checkKey(prefix);
  return { bucket, prefix };
}
