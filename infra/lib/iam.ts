/** Roles whose every statement stands here in the code: nothing that CDK would grant by itself is added to them. */
import { aws_iam as iam, CfnElement, Reference, Stack, Tokenization, Validations } from 'aws-cdk-lib';
import type { IConstruct } from 'constructs';
import { type Construct } from 'constructs';

/** One thing that a role may do, and where. */
export interface Right {
  readonly sid: string;
  readonly actions: readonly string[];
  readonly resources: readonly string[];
  readonly conditions?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** Why a resource has a `*`; without it there is none. */
  readonly because?: string;
}

/** Why a right is on everything. */
export const ANYWHERE = 'AWS knows no narrower resource for this action.';

export interface RoleOptions {
  /** Who takes it, as `ecs-tasks.amazonaws.com`. */
  readonly service: string;
  readonly rights: readonly Right[];
  /** Of AWS, each with why. */
  readonly managed?: Readonly<Record<string, string>>;
  readonly roleName?: string;
  readonly description: string;
}

/** A role with its rights as one inline policy, closed to CDK's own grants. */
export function roleOf(scope: Construct, id: string, { service, rights, managed = {}, roleName, description }: RoleOptions): iam.IRole {
  const statements = rights.map(({ sid, actions, resources, conditions }) =>
    new iam.PolicyStatement({ sid, actions: [...actions], resources: [...resources], ...(conditions === undefined ? {} : { conditions: structuredClone(conditions) as Record<string, unknown> }) }));
  const role = new iam.Role(scope, id, {
    assumedBy: new iam.ServicePrincipal(service),
    description,
    managedPolicies: Object.keys(managed).map((name) => iam.ManagedPolicy.fromAwsManagedPolicyName(name)),
    ...(roleName === undefined ? {} : { roleName }),
    ...(statements.length === 0 ? {} : { inlinePolicies: { rights: new iam.PolicyDocument({ statements }) } }),
  });
  for (const [name, reason] of Object.entries(managed)) accept(role, { [`AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/${name}]`]: reason });
  for (const right of rights) acceptWildcards(role, right);
  return role.withoutPolicyUpdates();
}

/** @throws Error: a right is wider than it says why. */
function acceptWildcards(role: iam.Role, { sid, actions, resources, because }: Right): void {
  const wide = resources.filter((resource) => textOf(role, resource).includes('*'));
  if (actions.some((action) => action.includes('*'))) throw new Error(`${sid}: an action has a *.`);
  if (wide.length > 0 && because === undefined) throw new Error(`${sid}: ${wide.join(', ')} has a *, and nothing says why.`);
  for (const resource of wide) accept(role, { [`AwsSolutions-IAM5[Resource::${textOf(role, resource)}]`]: because ?? '' });
}

const CONCAT = { join: (left: unknown, right: unknown) => `${left ?? ''}${right ?? ''}` };

/** As cdk-nag writes it: references by logical id, those to other stacks by the name of their export. */
function textOf(scope: Construct, resource: string): string {
  const stack = Stack.of(scope);
  return Tokenization.reverseString(resource).mapTokens({
    mapToken: (token) => {
      if (!Reference.isReference(token)) return `<${String((stack.resolve(token) as { readonly Ref?: string }).Ref)}>`;
      const of = Stack.of(token.target);
      if (of !== stack) return String((stack.resolve(of.exportValue(token)) as Record<string, unknown>)['Fn::ImportValue']);
      return CfnElement.isCfnElement(token.target) ? `<${stack.resolve(token.target.logicalId)}${token.displayName === 'Ref' ? '' : `.${token.displayName}`}>` : `<${token.displayName}>`;
    },
  }).join(CONCAT) as string;
}

/** Accepts findings of cdk-nag beside the resource that they are of: by rule, or by rule and finding. */
export function accept(construct: IConstruct, because: Readonly<Record<string, string>>): void {
  for (const [id, reason] of Object.entries(because)) Validations.of(construct).acknowledge({ id, reason });
}

/** Accepts findings of checkov, which reads them in the template beside the resource. */
export function skipCheckov(construct: IConstruct, because: Readonly<Record<string, string>>): void {
  const resource = (construct.node.defaultChild ?? construct) as unknown as { addMetadata(key: string, value: unknown): void; getMetadata(key: string): unknown };
  const before = (resource.getMetadata('checkov') ?? { skip: [] }) as { skip: object[] };
  resource.addMetadata('checkov', { skip: [...before.skip, ...Object.entries(because).map(([id, comment]) => ({ id, comment }))] });
}
