/** Intrinsics as people read them: `Store.Arn/platform/*` for what is imported from another stack. */
const PSEUDO: Readonly<Record<string, string>> = { 'AWS::AccountId': 'ACCOUNT', 'AWS::Region': 'REGION', 'AWS::Partition': 'aws' };
const EXPORT = /^.*:ExportsOutput(?:FnGetAtt|Ref)([A-Za-z]+?)[0-9A-F]{8}(Arn|[A-Z][A-Za-z]*?)?[0-9A-F]{8}$/;

export function placeOf(value: unknown, stage: string, region: string): string {
  return textOf(value).replaceAll(region, 'REGION').replaceAll(`ruminate-${stage}/`, 'CLUSTER/').replaceAll(`ruminate-${stage}`, 'CLUSTER');
}

export function textOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  const [[name, of] = ['', '']] = Object.entries(value);
  if (name === 'Fn::Join') return (of as [string, unknown[]])[1].map(textOf).join((of as [string, unknown[]])[0]);
  if (name === 'Fn::GetAtt') return `${shortId(String((of as string[])[0]))}.${(of as string[])[1]}`;
  if (name === 'Ref') return PSEUDO[String(of)] ?? shortId(String(of));
  if (name === 'Fn::ImportValue') return String(of).replace(EXPORT, (_, id: string, attribute?: string) => (attribute === undefined ? id : `${id}.${attribute}`));
  return JSON.stringify(value);
}

export const shortId = (id: string): string => id.replace(/[0-9A-F]{8}$/, '');
